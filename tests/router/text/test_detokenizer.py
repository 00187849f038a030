import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from router.text.detokenizer import Detokenizer
from router.text.tokenizer import TextCodec
from tests.router.text.small_tokenizers import EOS, byte_fallback, byte_level, special_ids

BYTE_LEVEL = byte_level()
BYTE_FALLBACK = byte_fallback()


def detokenize(detokenizer: Detokenizer, token_ids: list[int], sizes: list[int]) -> str:
    """Pushes the ids in pieces of the given sizes, then the rest one by one."""
    pieces, start = [], 0
    for size in [*sizes, *[1] * len(token_ids)]:
        pieces.append(detokenizer.push(token_ids[start : start + size]))
        start += size
    return "".join(pieces) + detokenizer.finish()


def new(tokenizer: Tokenizer) -> Detokenizer:
    return Detokenizer(tokenizer, special_ids(tokenizer))


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


@given(st.lists(st.integers(0, BYTE_FALLBACK.get_vocab_size() - 1), max_size=40), SIZES)
def test_byte_fallback_random_ids_never_raise(token_ids: list[int], sizes: list[int]) -> None:
    detokenize(new(BYTE_FALLBACK), token_ids, sizes)


def test_byte_fallback_bad_byte_after_good_ones_keeps_what_was_shown() -> None:
    detokenizer = new(BYTE_FALLBACK)
    first, *rest = (BYTE_FALLBACK.token_to_id(f"<0x{byte:02X}>") for byte in (0xC3, 0xA9, 0xFF))
    assert detokenizer.push([first, rest[0]]) == "é"
    assert detokenizer.push([rest[1], BYTE_FALLBACK.token_to_id("a")]) == "\ufffda"


def test_push_incomplete_character_is_held_until_complete() -> None:
    detokenizer = new(BYTE_LEVEL)
    *start, last = BYTE_LEVEL.encode("x😀").ids
    assert [detokenizer.push([token_id]) for token_id in start] == ["x", "", "", ""]
    assert detokenizer.push([last]) == "😀"
    assert detokenizer.finish() == ""


def test_finish_incomplete_character_becomes_replacement() -> None:
    detokenizer = new(BYTE_LEVEL)
    assert detokenizer.push(BYTE_LEVEL.encode("x😀").ids[:-1]) == ""
    assert detokenizer.finish() == "x\ufffd"


def test_push_special_tokens_give_no_text_and_are_not_held() -> None:
    detokenizer = new(BYTE_LEVEL)
    eos = BYTE_LEVEL.token_to_id(EOS)
    assert detokenizer.push([eos] * 1000) == ""
    assert detokenizer._held == []
    assert detokenizer.push(BYTE_LEVEL.encode("a").ids) == "a"


@pytest.mark.demo
def test_demo_random_ids_equal_decode_at_once(demo_codec: TextCodec) -> None:
    fragments = [
        token_id for text in ("😀👩‍👩‍👧", "中é") for token_id in demo_codec.encode(text, add_special_tokens=False)
    ]
    ids = st.one_of(st.integers(0, demo_codec.vocab_size - 1), st.sampled_from(fragments))

    @settings(max_examples=300)
    @given(st.lists(ids, max_size=40), SIZES)
    def check(token_ids: list[int], sizes: list[int]) -> None:
        assert detokenize(demo_codec.detokenizer(), token_ids, sizes) == demo_codec.decode(token_ids)

    check()
