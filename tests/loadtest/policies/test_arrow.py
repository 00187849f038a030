from dataclasses import replace

import pytest

from core.request import Role
from loadtest.arrivals import Arrival
from loadtest.policies.arrow import ArrowPolicy, ArrowSettings
from loadtest.simulator.outcome import Outcome
from loadtest.simulator.simulation import simulate
from router.roles.snapshot import Limits
from tests.loadtest.builders import COST, D, P, fleet_spec

RELAXED = Limits(ttft_s=1.0, tpot_s=0.2)


def flips_of(arrivals: list[Arrival], roles: list[Role], limits: Limits = RELAXED) -> Outcome:
    return simulate(fleet_spec(len(roles)), roles, arrivals, ArrowPolicy(limits, ArrowSettings()), limits)


def test_light_load_is_placed_inside_the_limits_without_a_flip() -> None:
    outcome = flips_of([Arrival(0.5 * i, 100, 10) for i in range(20)], [P, D, D])
    assert outcome.attainment == 1.0
    assert not outcome.flips


def test_prompt_that_no_instance_can_compute_in_time_takes_one_from_idle_decode() -> None:
    outcome = flips_of([Arrival(0.0, 800, 2), Arrival(0.0, 800, 2)], [P, D, D])
    assert [flip.role for _, flip in outcome.flips] == [P]
    assert outcome.jobs[1].ttft_s == outcome.jobs[0].ttft_s


def test_last_instance_of_a_pool_stays() -> None:
    outcome = flips_of([Arrival(0.0, 800, 2) for _ in range(4)], [P, D])
    assert not outcome.flips


def test_sequences_that_no_instance_can_hold_take_one_from_prefill_after_the_cooldown() -> None:
    tight = Limits(ttft_s=100.0, tpot_s=0.0205)  # attends to 500 tokens at most
    outcome = flips_of([Arrival(3.0 + 0.01 * i, 300, 30) for i in range(3)], [P, P, D], tight)
    assert [flip.role for _, flip in outcome.flips][:1] == [D]


def test_overloaded_decode_gets_an_instance_from_the_monitor_after_some_intervals() -> None:
    tight = Limits(ttft_s=100.0, tpot_s=0.024)  # a batch of 8 takes 27 ms
    outcome = flips_of([Arrival(0.1 * i, 50, 150) for i in range(60)], [P, P, D], tight)
    assert outcome.flips[0][1].role is D
    assert outcome.flips[0][0] >= 2.0


def test_flipped_instance_finishes_what_it_has() -> None:
    outcome = flips_of([Arrival(0.1 * i, 50, 150) for i in range(60)], [P, P, D], Limits(100.0, 0.024))
    assert outcome.num_migrations == 0
    assert {job.num_places for job in outcome.jobs} == {1}


@pytest.mark.parametrize("tpot_s", [0.001, COST.decode.at(1), 0.2])
def test_contexts_that_cost_nothing_and_limits_that_no_step_keeps_are_no_obstacle(tpot_s: float) -> None:
    limits, spec = Limits(1.0, tpot_s), fleet_spec(4, cost=replace(COST, decode_context_token_s=0.0))
    arrivals = [Arrival(0.1 * i, 100, 60) for i in range(20)]
    outcome = simulate(spec, [P, P, D, D], arrivals, ArrowPolicy(limits), limits)
    assert outcome.tally.num_finished == 20
