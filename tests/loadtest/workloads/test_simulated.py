import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError
from loadtest.arrivals import Arrival
from loadtest.workloads.plan import ConversationPlan, Piece, TurnPlan, user_message
from loadtest.workloads.settings import WorkloadSettings
from loadtest.workloads.simulated import Pace, arrivals_of
from loadtest.workloads.synthetic import synthetic_plans
from loadtest.workloads.traced import TracedRequests
from loadtest.workloads.wordbook import ASSUMED
from loadtest.workloads.workload import Workload
from loadtest.workloads.writer import Writer

PIECES = st.lists(
    st.builds(Piece, st.integers(0, 2), st.integers(1, 7), is_shared=st.just(True)), min_size=1, max_size=4
)

WRITER = Writer(ASSUMED, "0")


def single(pieces: list[Piece]) -> ConversationPlan:
    return ConversationPlan(0.0, (TurnPlan(user_message(*pieces), 1),))


@given(PIECES, PIECES, st.integers(16, 20))
def test_requests_share_blocks_exactly_where_their_words_are_equal(
    one: list[Piece], other: list[Piece], block_tokens: int
) -> None:
    # Long pieces, so that words of different ones differ within a block.
    plans = [single([Piece(p.key, p.num_tokens * 10, is_shared=True) for p in pieces]) for pieces in (one, other)]
    first, second = arrivals_of(iter(plans), block_tokens)
    words = [
        conversation.turns[0].messages[0].content.split(" ") for conversation in WRITER.conversations(iter(plans))
    ]
    equal_words = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*words, strict=False)))
    equal_ids = sum(
        1
        for _ in itertools.takewhile(
            lambda pair: pair[0] == pair[1], zip(first.block_ids, second.block_ids, strict=False)
        )
    )
    assert equal_ids <= equal_words // block_tokens
    if one == other[: len(one)]:
        assert equal_ids == equal_words // block_tokens


def test_blocks_of_a_trace_keep_what_they_share() -> None:
    arrivals = [Arrival(0.0, 1500, 5, (1, 2, 3)), Arrival(1.0, 1536, 6, (1, 2, 4)), Arrival(2.0, 512, 7, (5,))]
    first, second, third = arrivals_of(TracedRequests(arrivals, 1.0).plans(), 512)
    assert [(one.at_s, one.prompt_tokens, one.answer_tokens) for one in (first, second, third)] == [
        (0.0, 1500, 5), (1.0, 1536, 6), (2.0, 512, 7),
    ]  # fmt: skip
    assert first.block_ids == second.block_ids[:2]
    assert len({*second.block_ids, *third.block_ids}) == 4


def test_what_nobody_shares_has_no_blocks() -> None:
    shared, own = Piece(1, 40, is_shared=True), Piece(2, 100)
    (arrival,) = arrivals_of(iter([single([shared, own])]), 16)
    assert len(arrival.block_ids) == 2
    assert arrival.prompt_tokens == 140


def test_later_turns_hold_what_was_said_and_come_after_answer_and_pause() -> None:
    turns = (
        TurnPlan(user_message(Piece(1, 20)), 11),
        TurnPlan(user_message(Piece(2, 7)), 5, think_s=3.0),
    )
    plans = [ConversationPlan(1.0, turns), ConversationPlan(2.0, (TurnPlan(user_message(Piece(3, 9)), 1),))]
    first, between, second = arrivals_of(iter(plans), 10, Pace(first_token_s=0.5, token_s=0.1))
    assert (first.at_s, first.prompt_tokens) == (1.0, 20)
    assert (between.at_s, between.prompt_tokens) == (2.0, 9)
    assert second.at_s == pytest.approx(1.0 + 0.5 + 10 * 0.1 + 3.0)
    assert second.prompt_tokens == 20 + 11 + 7
    assert second.block_ids[:2] == first.block_ids
    assert len(second.block_ids) == 3


@given(st.integers(0, 2**32))
def test_arrivals_come_in_order_and_none_is_lost(seed: int) -> None:
    settings = WorkloadSettings(prompt_tokens="5:50", turns="1:4", think_s="exponential:3", seed=seed)
    plans = list(itertools.islice(synthetic_plans(settings, itertools.count(0.0, 0.5)), 30))
    arrivals = list(arrivals_of(iter(plans), 16, Pace(0.1, 0.01)))
    assert arrivals == sorted(arrivals, key=lambda arrival: arrival.at_s)
    assert len(arrivals) == sum(len(plan.turns) for plan in plans)


def test_arrivals_are_taken_lazily_from_plans_without_end() -> None:
    workload = Workload.load(WorkloadSettings(turns="2"))
    arrivals = arrivals_of(workload.open_loop(2.0), 16, Pace())
    assert len(list(itertools.islice(arrivals, 10))) == 10


def test_closed_loops_and_turns_without_a_pace_cannot_be_simulated() -> None:
    workload = Workload.load(WorkloadSettings(turns="2"))
    with pytest.raises(ConfigError, match="closed loop"):
        next(arrivals_of(workload.closed_loop(), 16))
    with pytest.raises(ConfigError, match="pace"):
        next(arrivals_of(workload.open_loop(1.0), 16))
