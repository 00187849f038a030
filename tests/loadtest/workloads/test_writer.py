import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError
from loadtest.workloads.plan import ConversationPlan, MessagePlan, Piece, TurnPlan, user_message
from loadtest.workloads.wordbook import ASSUMED, MIN_WORDS, NUM_WORDS, confirmed_words
from loadtest.workloads.writer import RIVER_WORDS, Writer
from router.text.tokenizer import TextCodec

KEYS = st.integers(0, 2**64 - 1)
LENGTHS = st.one_of(st.integers(1, 40), st.integers(RIVER_WORDS - 20, RIVER_WORDS + 20), st.just(3 * RIVER_WORDS))
WRITER, SAME, OTHER = (Writer(ASSUMED, seed) for seed in ("0 0", "0 0", "0 1"))


def num_words(text: str) -> int:
    return len(text.split(" "))


@given(KEYS, LENGTHS)
def test_a_piece_has_as_many_words_as_tokens_are_planned(key: int, length: int) -> None:
    assert num_words(WRITER.text(Piece(key, length))) == length


@given(KEYS, LENGTHS, LENGTHS)
def test_pieces_of_one_key_begin_alike(key: int, one: int, other: int) -> None:
    short, long = sorted((one, other))
    words = WRITER.text(Piece(key, long)).split(" ")
    assert WRITER.text(Piece(key, short)).split(" ") == words[:short]


@given(KEYS, KEYS)
def test_pieces_of_two_keys_differ_in_their_first_block(one: int, other: int) -> None:
    texts = [WRITER.text(Piece(key, 16)) for key in (one, other)]
    assert (texts[0] == texts[1]) == (one == other)


@given(KEYS)
def test_another_seed_says_it_in_other_words(key: int) -> None:
    assert OTHER.text(Piece(key, 16)) != WRITER.text(Piece(key, 16))
    assert SAME.text(Piece(key, 16)) == WRITER.text(Piece(key, 16))


def test_a_conversation_has_what_its_plan_says() -> None:
    recorded = MessagePlan("system", (Piece(1, 2, "Be brief."),))
    turns = (
        TurnPlan((recorded, *user_message(Piece(2, 3), Piece(3, 4))), 5),
        TurnPlan(user_message(Piece(4, 1)), 6, think_s=1.5),
    )
    (conversation,) = WRITER.conversations(iter([ConversationPlan(2.5, turns)]))
    first, second = conversation.turns
    assert conversation.at_s == 2.5
    assert [message.role for message in first.messages] == ["system", "user"]
    assert first.messages[0].content == "Be brief."
    assert first.messages[1].content == f"{WRITER.text(Piece(2, 3))} {WRITER.text(Piece(3, 4))}"
    assert (first.prompt_tokens, first.answer_tokens) == (9, 5)
    assert (second.prompt_tokens, second.answer_tokens, second.think_s) == (1, 6, 1.5)


@pytest.mark.demo
def test_confirmed_words_make_prompts_of_exact_lengths(demo_codec: TextCodec) -> None:
    words = confirmed_words(demo_codec)
    assert len(set(words)) == NUM_WORDS
    writer = Writer(words, "0 0")
    content = "x"
    bare = len(demo_codec.encode_chat([{"role": "user", "content": content}])) - 1
    for lengths in ((1,), (7, 1), (16, 16, 9), (1000, 3)):
        pieces = [Piece(number, length) for number, length in enumerate(lengths)]
        content = writer.content(MessagePlan("user", tuple(pieces)))
        assert len(demo_codec.encode(content, add_special_tokens=False)) == sum(lengths)
        assert len(demo_codec.encode_chat([{"role": "user", "content": content}])) == bare + sum(lengths)


class Words:
    """A tokenizer of words, of which some merge with their right neighbour, and some are two tokens."""

    def __init__(self, words: list[str], merged: set[tuple[str, str]], split: set[str]) -> None:
        self._ids = {word: number for number, word in enumerate(words)}
        self._merged, self._split = merged, split
        self.vocab_size = len(words)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        ids: list[int] = []
        before = ""
        for word in text.split(" "):
            if (before, word) in self._merged:
                ids[-1] = 10_000
            else:
                ids += [self._ids.get(word, 9_999)] * (2 if word in self._split else 1)
            before = word
        return ids

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = True) -> str:
        assert skip_special_tokens
        return next((f" {word}" for word, number in self._ids.items() if number == token_ids[0]), "<unknown>")


def test_words_that_merge_split_or_are_unknown_are_left_out() -> None:
    names = [f"w{number}" for number in range(MIN_WORDS + 3)]
    words = confirmed_words(Words(names, merged={("w4", "w2")}, split={"w7"}))
    assert set(words) == set(names) - {"w4", "w7"}


def test_words_that_a_chat_begins_with_two_tokens_for_are_left_out() -> None:
    names = [f"w{number}" for number in range(MIN_WORDS + 1)]
    words = confirmed_words(Words(names, set(), set()), lambda message: 9 if message == "w3" else 8)
    assert set(words) == set(names) - {"w3"}


def test_tokenizer_without_such_words_is_refused_with_their_number() -> None:
    names = [f"w{number}" for number in range(MIN_WORDS)]
    with pytest.raises(ConfigError, match=f"only {MIN_WORDS - 2} words"):
        confirmed_words(Words(names, merged=set(), split={"w1", "w2"}))
