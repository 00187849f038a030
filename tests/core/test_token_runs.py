from operator import attrgetter

import hypothesis.strategies as st
from hypothesis import given

from core.events import TokenEvent, TokenTiming
from core.request import FinishReason
from core.token_runs import TokenRun, runs_of
from tests.builders import events_of
from tests.strategies import token_logprobs

HANDOFF = attrgetter("handoff_id")
events = st.builds(
    TokenEvent,
    handoff_id=st.sampled_from("ab"),
    position=st.integers(0, 5),
    token_id=st.integers(0, 3),
    finish_reason=st.none() | st.sampled_from(FinishReason),
    logprobs=st.none() | token_logprobs,
    cached_tokens=st.integers(0, 2),
    timing=st.none() | st.just(TokenTiming(1.0, 2.0)),
)


@given(st.lists(events))
def test_runs_are_the_same_tokens_in_the_order_of_each_sequence(tokens: list[TokenEvent]) -> None:
    assert sorted(events_of(runs_of(tokens)), key=HANDOFF) == sorted(tokens, key=HANDOFF)


def test_tokens_that_follow_each_other_are_one_run() -> None:
    tokens = [
        TokenEvent("a", 0, 7, timing=TokenTiming(1.0, 2.0), cached_tokens=5),
        TokenEvent("b", 3, 8),
        TokenEvent("a", 1, 9),
        TokenEvent("b", 5, 1),
        TokenEvent("a", 2, 9, timing=TokenTiming(0.0, 1.0)),
        TokenEvent("a", 3, 4, FinishReason.STOP),
    ]
    assert runs_of(tokens) == [
        TokenRun("a", 0, (7, 9), timing=TokenTiming(1.0, 2.0), cached_tokens=5),
        TokenRun("b", 3, (8,)),
        TokenRun("b", 5, (1,)),
        TokenRun("a", 2, (9, 4), FinishReason.STOP, timing=TokenTiming(0.0, 1.0)),
    ]


def test_run_that_says_only_its_tokens_has_no_details() -> None:
    plain = TokenRun("a", 3, (1, 2))
    assert (plain.positions, plain.has_details) == (range(3, 5), False)
    for run in (plain._replace(finish_reason=FinishReason.STOP), plain._replace(timing=TokenTiming(0.0, 0.0))):
        assert run.has_details
