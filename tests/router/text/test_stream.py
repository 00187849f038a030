from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import WorkerLostError
from core.logprobs import TokenLogprobs
from core.request import FinishReason
from router.generation import TokenDelta
from router.text.stream import TextDelta, TextGeneration
from tests.router.text.small_tokenizers import EOS, byte_level, new_detokenizer

TOKENIZER = byte_level()
EOS_ID = TOKENIZER.token_to_id(EOS)


@dataclass
class ScriptedGeneration:
    """The dispatcher's half, cut off: deltas that have already arrived."""

    deltas: list[TokenDelta]
    request_id: str = "r1"
    num_cancels: int = 0
    is_answered: bool = False
    error: Exception | None = None
    read_deltas: list[TokenDelta] = field(default_factory=list)

    async def read(self) -> TokenDelta:
        if not self.deltas and self.error is not None:
            raise self.error
        self.read_deltas.append(self.deltas.pop(0))
        return self.read_deltas[-1]

    def cancel(self, *, is_answered: bool = False) -> None:
        self.num_cancels += 1
        self.is_answered = is_answered


def ids(text: str) -> tuple[int, ...]:
    return tuple(TOKENIZER.encode(text).ids)


def scripted(*deltas: tuple[tuple[int, ...], FinishReason | None]) -> ScriptedGeneration:
    return ScriptedGeneration([TokenDelta(token_ids, reason) for token_ids, reason in deltas])


def scored(*deltas: tuple[tuple[int, ...], FinishReason | None]) -> ScriptedGeneration:
    """With log-probabilities: minus the index of the token in the answer."""
    generation = scripted(*deltas)
    first = 0
    for i, delta in enumerate(generation.deltas):
        scores = tuple(TokenLogprobs(token_id, -float(first + k)) for k, token_id in enumerate(delta.token_ids))
        generation.deltas[i] = delta._replace(logprobs=scores)
        first += len(scores)
    return generation


def text_of(
    generation: ScriptedGeneration,
    stops: Sequence[str] = (),
    stop_token_ids: frozenset[int] = frozenset({EOS_ID}),
    min_tokens: int = 0,
) -> TextGeneration:
    detokenizer = new_detokenizer(TOKENIZER)
    return TextGeneration(generation, detokenizer, stops=stops, stop_token_ids=stop_token_ids, min_tokens=min_tokens)


def score_indices(delta: TextDelta) -> list[int]:
    return [int(-each.logprob) for each in delta.logprobs]


async def read_all(answer: TextGeneration) -> list[TextDelta]:
    deltas = [await answer.read()]
    while deltas[-1].finish_reason is None:
        deltas.append(await answer.read())
    return deltas


async def test_eos_is_counted_and_not_shown() -> None:
    answer = text_of(scripted((ids("Hi"), None), ((*ids("!"), EOS_ID), FinishReason.STOP)))
    assert [(delta.text, delta.num_tokens, delta.finish_reason) for delta in await read_all(answer)] == [
        ("Hi", 2, None),
        ("!", 2, FinishReason.STOP),
    ]
    assert answer.num_completion_tokens == 4


async def test_ordinary_stop_token_is_counted_and_not_shown() -> None:
    generation = scripted((ids("a."), FinishReason.STOP))
    (delta,) = await read_all(text_of(generation, stop_token_ids=frozenset(ids("."))))
    assert (delta.text, delta.num_tokens) == ("a", 2)


async def test_max_tokens_last_token_is_shown() -> None:
    (delta,) = await read_all(text_of(scripted((ids("ab"), FinishReason.LENGTH))))
    assert (delta.text, delta.finish_reason) == ("ab", FinishReason.LENGTH)


async def test_max_tokens_inside_character_shows_replacement() -> None:
    (delta,) = await read_all(text_of(scripted((ids("é")[:1], FinishReason.LENGTH))))
    assert delta.text == "\ufffd"


async def test_end_without_further_token_releases_what_was_held() -> None:
    deltas = await read_all(text_of(scripted((ids("a#"), None), ((), FinishReason.LENGTH)), stops=["##"]))
    assert [(delta.text, delta.num_tokens) for delta in deltas] == [("a", 2), ("#", 0)]


async def test_stop_string_cancels_and_counts_to_the_token_that_completed_it() -> None:
    generation = scripted((ids("one#"), None), (ids("#two"), None))
    answer = text_of(generation, stops=["##"])
    first, last = await read_all(answer)
    assert (first.text, first.finish_reason) == ("one", None)
    assert last == TextDelta("", ids("#"), FinishReason.STOP)
    assert answer.num_completion_tokens == 5
    assert (generation.num_cancels, generation.is_answered) == (1, True)


async def test_stop_string_in_last_delta_goes_before_length() -> None:
    (delta,) = await read_all(text_of(scripted((ids("a##"), FinishReason.LENGTH)), stops=["##"]))
    assert (delta.text, delta.num_tokens, delta.finish_reason) == ("a", 3, FinishReason.STOP)


@given(st.text(alphabet="ab é", max_size=12), st.lists(st.integers(1, 4), max_size=8), st.booleans())
async def test_any_batching_gives_the_same_text_and_count(text: str, sizes: list[int], with_stop: bool) -> None:
    token_ids = (*ids(text), EOS_ID)
    stops = ["ab"] if with_stop else []

    async def outcome(sizes: list[int]) -> tuple[str, int, FinishReason | None]:
        pieces = []
        rest = token_ids
        for size in sizes:
            if len(rest) > size:
                pieces.append((rest[:size], None))
                rest = rest[size:]
        answer = text_of(scripted(*pieces, (rest, FinishReason.STOP)), stops=stops)
        deltas = await read_all(answer)
        return "".join(delta.text for delta in deltas), answer.num_completion_tokens, deltas[-1].finish_reason

    shown, num_tokens, reason = await outcome(sizes)
    assert (shown, num_tokens, reason) == await outcome([])
    assert shown == (text.split("ab", maxsplit=1)[0] if with_stop else text)


async def test_failure_of_the_request_reaches_the_reader() -> None:
    generation = scripted((ids("a"), None))
    generation.error = WorkerLostError("lost too often")
    answer = text_of(generation)
    await answer.read()
    with pytest.raises(WorkerLostError):
        await answer.read()


async def test_leaving_the_context_cancels() -> None:
    generation = scripted((ids("a"), None))
    async with text_of(generation) as answer:
        assert answer.request_id == "r1"
    assert generation.num_cancels == 1


# --- min_tokens


async def test_stop_string_complete_within_min_tokens_is_text() -> None:
    answer = text_of(scripted((ids("a##b##c"), FinishReason.LENGTH)), stops=["##"], min_tokens=3)
    (delta,) = await read_all(answer)
    assert (delta.text, delta.num_tokens, delta.finish_reason) == ("a##b", 6, FinishReason.STOP)


async def test_stop_string_complete_after_min_tokens_ends_though_begun_within() -> None:
    first, last = await read_all(text_of(scripted((ids("a#"), None), (ids("#b"), None)), stops=["##"], min_tokens=2))
    assert (first.text, last.text, last.finish_reason) == ("a", "", FinishReason.STOP)


async def test_min_tokens_count_over_deltas() -> None:
    deltas = [(ids(char), None) for char in "#.#.#."]
    answer = text_of(scripted(*deltas), stops=["#"], min_tokens=4)
    assert "".join(delta.text for delta in await read_all(answer)) == "#.#."
    assert answer.num_completion_tokens == 5


# --- log-probabilities


async def test_scores_come_with_the_text_of_their_tokens() -> None:
    smile = ids("\U0001f600")
    deltas = [
        (ids("a") + smile[:2], None),
        (smile[2:3], None),
        (smile[3:] + ids("b"), None),
        ((EOS_ID,), FinishReason.STOP),
    ]
    received = await read_all(text_of(scored(*deltas)))
    assert [(delta.text, score_indices(delta)) for delta in received] == [
        ("a", [0]),
        ("", []),
        ("\U0001f600b", [1, 2, 3, 4, 5]),
        ("", [6]),
    ]


async def test_scores_of_a_possible_stop_string_wait_with_its_text() -> None:
    deltas = [(ids("a#"), None), (ids("b#"), None), (ids("#c"), None)]
    received = await read_all(text_of(scored(*deltas), stops=["##"]))
    assert [(delta.text, score_indices(delta)) for delta in received] == [("a", [0]), ("#b", [1, 2]), ("", [3, 4])]


async def test_scores_held_at_the_end_come_with_it() -> None:
    received = await read_all(text_of(scored((ids("a#"), None), ((), FinishReason.LENGTH)), stops=["##"]))
    assert [(delta.text, score_indices(delta)) for delta in received] == [("a", [0]), ("#", [1])]
    (cut,) = await read_all(text_of(scored((ids("\u00e9")[:1], FinishReason.LENGTH))))
    assert (cut.text, score_indices(cut)) == ("\ufffd", [0])


async def test_special_token_without_text_is_scored_at_once() -> None:
    first, _ = await read_all(text_of(scored(((EOS_ID,), None), (ids("a"), FinishReason.LENGTH))))
    assert (first.text, score_indices(first)) == ("", [0])


@given(
    st.text(alphabet="ab# \u00e9\U0001f600", max_size=12),
    st.lists(st.integers(1, 4), max_size=8),
    st.sampled_from([(), ("#a",), ("ab", "b#b")]),
    st.integers(0, 6),
)
async def test_every_counted_token_is_scored_once_and_in_order(
    text: str, sizes: list[int], stops: tuple[str, ...], min_tokens: int
) -> None:
    rest = (*ids(text), EOS_ID)
    pieces = []
    for size in sizes:
        if len(rest) > size:
            pieces.append((rest[:size], None))
            rest = rest[size:]
    deltas = [*pieces, (rest, FinishReason.STOP)]
    answer, silent = (text_of(make(*deltas), stops, min_tokens=min_tokens) for make in (scored, scripted))
    received, expected = await read_all(answer), await read_all(silent)
    assert [index for delta in received for index in score_indices(delta)] == list(
        range(answer.num_completion_tokens)
    )
    assert "".join(delta.text for delta in received) == "".join(delta.text for delta in expected)
    assert all(delta.logprobs == () for delta in expected)


@given(
    st.text(alphabet="ab# \u00e9\U0001f600", max_size=12),
    st.lists(st.integers(1, 4), max_size=8),
    st.sampled_from([(), ("#a",), ("ab", "b#b")]),
)
async def test_text_that_was_shown_is_a_function_of_the_tokens_counted(
    text: str, sizes: list[int], stops: tuple[str, ...]
) -> None:
    def shown_after(deltas: list[TextDelta]) -> dict[tuple[int, bool], str]:
        shown, num_tokens, after = "", 0, {}
        for delta in deltas:
            shown, num_tokens = shown + delta.text, num_tokens + delta.num_tokens
            after[num_tokens, delta.finish_reason is not None] = shown
        return after

    whole = (*ids(text), EOS_ID)
    rest, pieces = whole, []
    for size in sizes:
        if len(rest) > size:
            pieces.append((rest[:size], None))
            rest = rest[size:]
    in_pieces = await read_all(text_of(scripted(*pieces, (rest, FinishReason.STOP)), stops))
    each = [((token_id,), None) for token_id in whole[:-1]]
    one_by_one = shown_after(await read_all(text_of(scripted(*each, (whole[-1:], FinishReason.STOP)), stops)))
    assert shown_after(in_pieces).items() <= one_by_one.items()
