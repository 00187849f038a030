from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from core.ids import WorkerId
from router.dispatch.placement import PrefillCandidate
from router.dispatch.prefix_fetch import (
    DEFAULT_BYTES_PER_S,
    FIXED_S,
    MARGIN,
    MIN_MEASURED_BYTES,
    BlockTraffic,
    PrefixHolder,
    measured_bytes_per_s,
    plan_fetch,
)
from tests.builders import cost_model

TARGET = PrefillCandidate(WorkerId("p", 1), pending_tokens=0, cost=cost_model())  # a millisecond a token
HOLDER = PrefixHolder(WorkerId("d", 1), num_tokens=800, delay_s=0.0)
TRAFFIC = BlockTraffic(block_tokens=16, block_bytes=2**20, bytes_per_s=1e9)  # 50 blocks take 52 ms


def test_long_prefix_is_fetched_and_what_it_takes_is_predicted() -> None:
    plan = plan_fetch(TARGET, [HOLDER], TRAFFIC, 900)
    assert plan is not None
    assert (plan.worker, plan.num_tokens) == (HOLDER.worker, 800)
    assert plan.expected_s == pytest.approx(FIXED_S + 50 * 2**20 / 1e9)
    assert plan.saved_s == pytest.approx(0.8 - plan.expected_s, rel=0.1)


@pytest.mark.parametrize(
    ("holder", "traffic", "cached"),
    [
        (replace(HOLDER, num_tokens=16), TRAFFIC, 0),  # what it saves is not worth the calls
        (HOLDER, replace(TRAFFIC, bytes_per_s=1e8), 0),  # the link is slower than the engine
        (replace(HOLDER, delay_s=0.5), TRAFFIC, 0),  # the source is in a long step
        (HOLDER, TRAFFIC, 800),  # it is here
        (HOLDER, TRAFFIC, 784),  # all but one block is
    ],
)
def test_prompt_is_computed_when_that_is_about_as_fast(
    holder: PrefixHolder, traffic: BlockTraffic, cached: int
) -> None:
    assert plan_fetch(replace(TARGET, cached_tokens=cached), [holder], traffic, 900) is None


def test_only_what_is_missing_is_moved() -> None:
    plan = plan_fetch(replace(TARGET, cached_tokens=400), [HOLDER], TRAFFIC, 900)
    assert plan is not None
    assert plan.num_tokens == 800
    assert plan.expected_s == pytest.approx(FIXED_S + 25 * 2**20 / 1e9)


def test_last_token_is_left_to_compute() -> None:
    plan = plan_fetch(TARGET, [HOLDER], TRAFFIC, 800)
    assert plan is not None
    assert plan.num_tokens == 784


def test_deeper_holder_is_asked_unless_it_is_slower_to_answer() -> None:
    deep, near = replace(HOLDER, worker=WorkerId("a", 1)), replace(HOLDER, num_tokens=640)
    for delay_s, expected in ((0.0, deep), (0.2, near)):
        plan = plan_fetch(TARGET, [replace(deep, delay_s=delay_s), near], TRAFFIC, 900)
        assert plan is not None
        assert plan.worker == expected.worker


@given(
    num_prompt_tokens=st.integers(1, 2000),
    cached=st.integers(0, 2000),
    holders=st.lists(
        st.builds(
            PrefixHolder,
            worker=st.integers(0, 9).map(lambda i: WorkerId(f"d{i}", 1)),
            num_tokens=st.integers(0, 2000),
            delay_s=st.floats(0, 1),
        ),
        max_size=4,
        unique_by=lambda holder: holder.worker,
    ),
    slowness=st.sampled_from([0.01, 1.0, 20.0]),
)
def test_fetch_is_for_whole_blocks_beyond_what_is_here_and_clearly_faster(
    num_prompt_tokens: int, cached: int, holders: list[PrefixHolder], slowness: float
) -> None:
    target = replace(TARGET, cost=cost_model(slowness), cached_tokens=cached)
    plan = plan_fetch(target, holders, TRAFFIC, num_prompt_tokens)
    assert plan == plan_fetch(target, holders[::-1], TRAFFIC, num_prompt_tokens)
    if plan is not None:
        assert plan.num_tokens % TRAFFIC.block_tokens == 0
        assert min(cached, num_prompt_tokens) - TRAFFIC.block_tokens < plan.num_tokens < num_prompt_tokens
        assert plan.saved_s + plan.expected_s > MARGIN * plan.expected_s


@pytest.mark.parametrize(
    ("num_bytes", "seconds", "expected"),
    [
        (0, 0.0, DEFAULT_BYTES_PER_S),
        (MIN_MEASURED_BYTES - 1, 1.0, DEFAULT_BYTES_PER_S),
        (MIN_MEASURED_BYTES, 0.5, 2 * MIN_MEASURED_BYTES),
    ],
)
def test_bandwidth_is_measured_once_enough_was_moved(num_bytes: int, seconds: float, expected: float) -> None:
    assert measured_bytes_per_s(num_bytes, seconds) == expected
