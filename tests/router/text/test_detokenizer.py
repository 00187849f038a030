import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders

from router.text.detokenizer import Detokenizer
from router.text.token_pieces import TokenPieces
from router.text.tokenizer import TextCodec
from router.text.whole_texts import WholeTexts
from tests.router.text.small_tokenizers import EOS, byte_fallback, byte_level, new_detokenizer, special_ids

BYTE_LEVEL = byte_level()
BYTE_FALLBACK = byte_fallback()
BYTE_FALLBACK_AS_IS = byte_fallback(strips_start=False)
OTHER = byte_fallback()
OTHER.decoder = decoders.BPEDecoder(suffix="\u2581")  # what a token gives depends on whether it is the last one


def detokenize(detokenizer: Detokenizer, token_ids: list[int], sizes: list[int]) -> str:
    return "".join(pieces_of(detokenizer, token_ids, sizes)) + detokenizer.finish()


def pieces_of(detokenizer: Detokenizer, token_ids: list[int], sizes: list[int]) -> list[str]:
    """Pushes the ids in groups of the given sizes, then the rest one by one."""
    pieces, start = [], 0
    for size in [*sizes, *[1] * len(token_ids)]:
        pieces += detokenizer.push(token_ids[start : start + size])
        start += size
    return pieces


class NothingWhole(WholeTexts):
    """Has every token decoded."""

    def __missing__(self, token_id: int) -> None:
        return None


def decoding(tokenizer: Tokenizer) -> Detokenizer:
    """One that looks nothing up."""
    special = special_ids(tokenizer)
    return Detokenizer(tokenizer, special, NothingWhole(tokenizer, special, TokenPieces(tokenizer)))


new = new_detokenizer


SIZES = st.lists(st.integers(0, 5), max_size=10)


@given(st.lists(st.integers(0, BYTE_LEVEL.get_vocab_size() - 1), max_size=40), SIZES)
def test_byte_level_random_ids_equal_decode_at_once(token_ids: list[int], sizes: list[int]) -> None:
    assert detokenize(new(BYTE_LEVEL), token_ids, sizes) == BYTE_LEVEL.decode(token_ids, skip_special_tokens=True)


@given(st.text(max_size=30), SIZES)
def test_byte_level_any_text_comes_back(text: str, sizes: list[int]) -> None:
    assert detokenize(new(BYTE_LEVEL), BYTE_LEVEL.encode(text).ids, sizes) == text


@given(st.text(alphabet="ab c中é😀", max_size=30), SIZES)
def test_byte_fallback_any_text_equals_decode_at_once(text: str, sizes: list[int]) -> None:
    token_ids = BYTE_FALLBACK.encode(text).ids
    assert detokenize(new(BYTE_FALLBACK), token_ids, sizes) == BYTE_FALLBACK.decode(token_ids)


@pytest.mark.parametrize(
    "tokenizer",
    [BYTE_LEVEL, BYTE_FALLBACK, BYTE_FALLBACK_AS_IS, OTHER],
    ids=["byte-level", "byte-fallback", "byte-fallback-as-is", "other"],
)
@given(st.data(), SIZES)
def test_what_each_token_shows_is_as_if_all_were_decoded(
    tokenizer: Tokenizer, data: st.DataObject, sizes: list[int]
) -> None:
    num_ids = tokenizer.get_vocab_size() + 1  # one is unknown
    text = data.draw(st.text(alphabet="ab c中é😀\ufffd", max_size=8))
    some = st.one_of(st.integers(0, num_ids - 1), st.sampled_from([*tokenizer.encode(text).ids, num_ids - 2]))
    token_ids = data.draw(st.lists(some, max_size=30))
    looking_up, reference = new(tokenizer), decoding(tokenizer)
    shown = []
    for token_id in token_ids:
        shown += reference.push([token_id])
        assert looking_up.push([token_id]) == shown[-1:]
        assert looking_up.is_holding is reference.is_holding
    end = reference.finish()
    assert looking_up.finish() == end
    in_groups = new(tokenizer)
    assert pieces_of(in_groups, token_ids, sizes) == shown
    assert in_groups.finish() == end


@pytest.mark.parametrize(
    ("tokenizer", "name", "text"),
    [(BYTE_LEVEL, "a", "a"), (BYTE_FALLBACK, "▁ab", " ab"), (BYTE_FALLBACK_AS_IS, "▁ab", " ab"), (OTHER, "a", None)],
    ids=["byte-level", "byte-fallback", "byte-fallback-as-is", "other"],
)
def test_tokens_are_looked_up_where_the_decoder_allows_it(tokenizer: Tokenizer, name: str, text: str | None) -> None:
    whole_texts = WholeTexts(tokenizer, special_ids(tokenizer), TokenPieces(tokenizer))
    assert whole_texts[tokenizer.token_to_id(name)] == text
    assert whole_texts[tokenizer.token_to_id(EOS)] is None


def test_part_of_a_character_is_not_whole() -> None:
    for tokenizer, name in ((BYTE_LEVEL, "Ã"), (BYTE_FALLBACK, "<0xC3>")):
        whole_texts = WholeTexts(tokenizer, special_ids(tokenizer), TokenPieces(tokenizer))
        assert whole_texts[tokenizer.token_to_id(name)] is None


def test_byte_fallback_bad_byte_after_good_ones_keeps_what_was_shown() -> None:
    detokenizer = new(BYTE_FALLBACK)
    first, *rest = (BYTE_FALLBACK.token_to_id(f"<0x{byte:02X}>") for byte in (0xC3, 0xA9, 0xFF))
    assert detokenizer.push([first, rest[0]]) == ["", "é"]
    assert detokenizer.push([rest[1], BYTE_FALLBACK.token_to_id("a")]) == ["", "\ufffda"]


def test_push_incomplete_character_is_held_until_complete() -> None:
    detokenizer = new(BYTE_LEVEL)
    *start, last = BYTE_LEVEL.encode("x😀").ids
    assert detokenizer.push(start) == ["x", "", "", ""]
    assert detokenizer.push([last]) == ["😀"]
    assert detokenizer.finish() == ""


def test_finish_incomplete_character_becomes_replacement() -> None:
    detokenizer = new(BYTE_LEVEL)
    assert detokenizer.push(BYTE_LEVEL.encode("x😀").ids[:-1]) == ["x", "", "", ""]
    assert detokenizer.finish() == "\ufffd"


def test_push_special_tokens_give_no_text_and_are_not_held() -> None:
    detokenizer = new(BYTE_LEVEL)
    eos = BYTE_LEVEL.token_to_id(EOS)
    assert detokenizer.push([eos] * 1000) == [""] * 1000
    assert not detokenizer.is_holding
    assert detokenizer.push(BYTE_LEVEL.encode("a").ids) == ["a"]


@pytest.mark.demo
def test_demo_random_ids_equal_decode_at_once(demo_codec: TextCodec) -> None:
    fragments = [
        token_id for text in ("😀👩‍👩‍👧", "中é") for token_id in demo_codec.encode(text, add_special_tokens=False)
    ]
    ids = st.one_of(st.integers(0, demo_codec.vocab_size - 1), st.sampled_from(fragments))

    @settings(max_examples=300)
    @given(st.lists(ids, max_size=40), SIZES)
    def check(token_ids: list[int], sizes: list[int]) -> None:
        shown = pieces_of(decoding(demo_codec._tokenizer), token_ids, [])
        detokenizer = demo_codec.detokenizer()
        assert pieces_of(detokenizer, token_ids, sizes) == shown
        assert "".join(shown) + detokenizer.finish() == demo_codec.decode(token_ids)

    check()
