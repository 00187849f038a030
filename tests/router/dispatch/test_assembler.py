from itertools import takewhile

import hypothesis.strategies as st
from hypothesis import given

from core.logprobs import TokenLogprobs
from core.request import FinishReason
from core.token_runs import TokenRun
from router.dispatch.assembler import TokenAssembler


def event(position: int, finish: FinishReason | None = None) -> TokenRun:
    return run(position, position + 1, finish)


def run(position: int, end: int, finish: FinishReason | None = None) -> TokenRun:
    return TokenRun("h", position, tuple(range(100 + position, 100 + end)), finish)


def test_tokens_in_order_are_accepted_one_by_one() -> None:
    answer = TokenAssembler()
    assert [answer.accept(event(position)) for position in range(3)] == [1, 1, 1]
    assert answer.tokens == [100, 101, 102]


def test_token_before_its_predecessor_is_held() -> None:
    answer = TokenAssembler()
    assert answer.accept(event(1)) == 0
    assert answer.accept(event(2, FinishReason.STOP)) == 0
    assert (answer.tokens, answer.finish_reason) == ([], None)
    assert answer.accept(event(0)) == 3
    assert (answer.tokens, answer.finish_reason) == ([100, 101, 102], FinishReason.STOP)


def test_cached_tokens_are_those_said_with_the_first_token_of_the_answer() -> None:
    answer = TokenAssembler()
    answer.accept(event(1))
    assert answer.num_cached_tokens == 0
    answer.accept(event(0)._replace(cached_tokens=16))
    answer.accept(event(2)._replace(cached_tokens=32))  # another attempt, whose prompt holds the answer so far
    assert answer.num_cached_tokens == 16


def test_repeated_token_changes_nothing() -> None:
    answer = TokenAssembler()
    answer.accept(event(0))
    assert answer.accept(TokenRun("h", 0, (7,), FinishReason.STOP)) == 0
    assert (answer.tokens, answer.finish_reason) == ([100], None)


def test_token_after_the_end_is_dropped() -> None:
    answer = TokenAssembler()
    answer.accept(event(0, FinishReason.LENGTH))
    assert answer.accept(event(1)) == 0
    assert answer.tokens == [100]


def test_held_token_after_the_end_is_dropped() -> None:
    answer = TokenAssembler()
    answer.accept(event(1))
    assert answer.accept(event(0, FinishReason.STOP)) == 1
    assert (answer.tokens, answer.finish_reason) == ([100], FinishReason.STOP)


def test_logprobs_follow_their_tokens() -> None:
    answer = TokenAssembler()
    for position in (1, 0, 0):
        answer.accept(event(position)._replace(logprobs=(TokenLogprobs(100 + position, -1.0),)))
    assert [logprobs.token_id for logprobs in answer.logprobs] == answer.tokens == [100, 101]


def test_dropped_held_tokens_do_not_come_back() -> None:
    answer = TokenAssembler()
    answer.accept(event(1))
    answer.drop_held()
    assert answer.accept(event(0)) == 1
    assert answer.tokens == [100]


@given(positions=st.lists(st.integers(0, 8)), last=st.none() | st.integers(0, 8))
def test_any_order_with_gaps_and_repeats_gives_the_longest_prefix(positions: list[int], last: int | None) -> None:
    answer = TokenAssembler()
    seen: set[int] = set()
    for position in positions:
        seen.add(position)
        grown = answer.accept(event(position, FinishReason.STOP if position == last else None))
        # The naive model: all positions from 0 without a gap, up to the last one.
        end = 9 if last is None else last + 1
        prefix = list(takewhile(lambda expected: expected in seen, range(end)))
        assert answer.tokens == [100 + expected for expected in prefix]
        assert 0 <= grown <= len(prefix)
        assert (answer.finish_reason is None) == (last is None or len(prefix) <= last)


def test_only_what_is_new_of_a_run_is_taken() -> None:
    answer = TokenAssembler()
    assert [answer.accept(run(0, 3)), answer.accept(run(1, 3)), answer.accept(run(2, 5))] == [3, 0, 2]
    assert answer.tokens == [100, 101, 102, 103, 104]


def test_logprobs_of_known_tokens_are_not_taken_again() -> None:
    answer = TokenAssembler()
    for first, end in ((0, 2), (1, 4)):
        scores = tuple(TokenLogprobs(100 + position, -1.0) for position in range(first, end))
        answer.accept(run(first, end)._replace(logprobs=scores))
    assert [logprobs.token_id for logprobs in answer.logprobs] == answer.tokens == [100, 101, 102, 103]


def test_longest_of_held_runs_that_begin_alike_is_kept() -> None:
    answer = TokenAssembler()
    for end in (2, 4, 3):
        assert answer.accept(run(1, end)) == 0
    assert answer.accept(event(0)) == 4


@given(runs=st.lists(st.tuples(st.integers(0, 8), st.integers(1, 4))), last=st.none() | st.integers(0, 11))
def test_runs_in_any_order_give_the_longest_prefix(runs: list[tuple[int, int]], last: int | None) -> None:
    answer, seen = TokenAssembler(), set[int]()
    end_of_all = 12 if last is None else last + 1
    for position, num_tokens in runs:
        end = min(position + num_tokens, end_of_all)
        if end > position:
            seen.update(range(position, end))
            answer.accept(run(position, end, FinishReason.STOP if end == end_of_all and last is not None else None))
        prefix = list(takewhile(lambda expected: expected in seen, range(end_of_all)))
        assert answer.tokens == [100 + expected for expected in prefix]
        assert (answer.finish_reason is None) == (last is None or len(prefix) <= last)
