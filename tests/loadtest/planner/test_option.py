"""Estimates, by hand; and that the simulator agrees with them."""

from dataclasses import replace

import pytest

from loadtest.planner.demand import Demand, demand_of
from loadtest.planner.option import Estimate, Infeasible, WorkerOption, estimate, largest_batch, max_num_seqs
from loadtest.planner.trial import Fleet, run_trial
from tests.loadtest.planner.builders import LIMITS, option, steady_load


def steady_demand() -> Demand:
    return demand_of(steady_load(rate=5), 0.9, block_tokens=16)


def reason(made: WorkerOption, demand: Demand) -> str:
    verdict = estimate(made, demand, LIMITS)
    assert isinstance(verdict, Infeasible)
    return verdict.reason


def test_estimate_is_the_time_that_the_load_takes() -> None:
    demand = steady_demand()
    verdict = estimate(option(), demand, LIMITS)
    assert isinstance(verdict, Estimate)
    assert verdict.num_prefill == pytest.approx(5 * 1000 * 1e-4)
    assert verdict.max_num_seqs == 64
    assert verdict.num_decode == pytest.approx(5 * 100 * 0.02 / 64)


def test_batch_is_bounded_by_room_by_places_and_by_the_step() -> None:
    assert largest_batch(option(kv_tokens=10_500), 1000, step_s=0.02) == 10
    assert largest_batch(option(), 1000, step_s=0.02) == 64
    assert largest_batch(option(), 1000, step_s=0.019) == 0


def test_request_that_fits_no_worker_is_told_with_both_numbers() -> None:
    made = replace(option(), sequence_tokens=1099)
    assert reason(made, steady_demand()) == (
        "KV room: the longest request has 1,100 tokens, one sequence room for 1,099"
    )
    assert isinstance(estimate(replace(made, sequence_tokens=1100), steady_demand(), LIMITS), Estimate)


def test_prompt_that_is_late_without_waiting_is_told() -> None:
    assert reason(option(token_s=1.5e-3), steady_demand()) == (
        "TTFT: prompts of 1,000 new tokens take 1.50 s without waiting, the limit is 1 s, and too many are as long"
    )


def test_step_that_is_too_long_for_one_sequence_is_told() -> None:
    assert reason(option(step_s=0.051), steady_demand()) == (
        "TPOT: a step with one sequence takes 51.0 ms, the limit is 50 ms"
    )


def test_steps_may_take_the_whole_limit_where_no_batch_leaves_some_of_it() -> None:
    assert max_num_seqs(option(step_s=0.041), 1000, LIMITS.tpot_s) == 64
    assert max_num_seqs(option(step_s=0.051), 1000, LIMITS.tpot_s) == 0


@pytest.mark.parametrize(("prompt_tokens", "capacity"), [(1000, 10.0), (100, 32.0)])
@pytest.mark.parametrize(("busy", "is_enough"), [(0.8, True), (1.3, False)])
def test_simulation_keeps_limits_up_to_the_estimated_capacity(
    prompt_tokens: int, capacity: float, busy: float, *, is_enough: bool
) -> None:
    """One worker of each half: a prompt of 1,000 tokens takes 0.1 s; 64 answers of 100 tokens take 2 s."""
    arrivals = steady_load(rate=capacity * busy, duration_s=60.0, prompt_tokens=prompt_tokens)
    verdict = estimate(option(), demand_of(arrivals, 0.9, block_tokens=16), LIMITS)
    assert isinstance(verdict, Estimate)
    assert max(verdict.num_prefill, verdict.num_decode) == pytest.approx(busy, rel=0.01)
    result = run_trial(Fleet(option(), verdict.max_num_seqs, 2, "static:1:1"), arrivals, LIMITS)
    assert (result.attainment > 0.95) is is_enough
    assert result.num_requests == len(arrivals)
    assert result.goodput == pytest.approx(capacity * busy * result.attainment)
