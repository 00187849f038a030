"""The simulator beside closed forms."""

import math
import random

import pytest

from core.cost import CostModel, Curve
from core.errors import ConfigError
from loadtest.arrivals import Arrival
from loadtest.simulator.simulation import DRAIN_S
from loadtest.simulator.spec import Batching, baton_batching
from tests.loadtest.builders import COST, FCFS, MOVES, D, M, P, fleet_spec, run, times


def test_one_request_alone_takes_what_the_cost_model_says() -> None:
    outcome = run(fleet_spec(2), [P, D], [Arrival(1.0, 250, 11)])
    first_s, finished_s = times(outcome.jobs[0])
    assert first_s - 1.0 == pytest.approx(COST.completion_s(0, 250))
    handoff_s = MOVES.copy_s(FCFS.chunk_tokens)  # the last chunk; the others travel while it is computed
    decoding_s = sum(COST.decode_s(1, 251 + step) for step in range(10))
    assert finished_s - first_s == pytest.approx(handoff_s + decoding_s)


def test_one_request_on_a_mixed_worker_is_not_handed_over() -> None:
    outcome = run(fleet_spec(1), [M], [Arrival(0.0, 250, 11)])
    first_s, finished_s = times(outcome.jobs[0])
    assert finished_s - first_s == pytest.approx(sum(COST.decode_s(1, 251 + step) for step in range(10)))


def test_request_for_one_token_ends_with_its_prompt_and_leaves_no_promise_behind() -> None:
    outcome = run(fleet_spec(2, max_num_seqs=1), [P, D], [Arrival(0.0, 50, 1), Arrival(0.1, 50, 2)])
    first_s, finished_s = times(outcome.jobs[0])
    assert first_s == finished_s
    assert outcome.jobs[1].finished_s is not None


def test_prompt_beside_a_decoding_sequence_slows_its_tokens_by_the_shared_step() -> None:
    alone = run(fleet_spec(1), [M], [Arrival(0.0, 50, 40)])
    beside = run(fleet_spec(1), [M], [Arrival(0.0, 50, 40), Arrival(0.3, 300, 1)])
    shared_s = min(COST.prefill.at(1), COST.decode.at(1))
    # Of 300 tokens in steps of 100, one token of each step is the sequence's.
    chunks = [(99, 0), (99, 99), (99, 198), (3, 297)]
    slower_s = sum(
        COST.prefill.at(num) + COST.prefill_pair_s * num * (before + num / 2) - shared_s for num, before in chunks
    )
    assert times(beside.jobs[0])[1] - times(alone.jobs[0])[1] == pytest.approx(slower_s)


def test_prompt_beside_a_sequence_is_computed_in_pieces_that_keep_the_limit_on_its_tokens() -> None:
    arrivals = [Arrival(0.0, 50, 60), Arrival(0.3, 300, 1)]
    free = run(fleet_spec(1), [M], arrivals)
    bounded = run(fleet_spec(1, batching=baton_batching(100, tpot_limit_s=0.05)), [M], arrivals)
    assert bounded.jobs[1].ttft_s > free.jobs[1].ttft_s
    # 20 ms of 0.8 * 50 are the sequence's and 11 are shared: 31 ms are left for the prompt, which is 21 tokens.
    attention_s = COST.prefill_pair_s * 300 * 150
    assert bounded.jobs[1].ttft_s == pytest.approx(math.ceil(300 / 21) * 0.04 + attention_s, abs=0.05)


def test_wait_for_one_worker_is_that_of_an_m_d_1_queue() -> None:
    service_s, rho, draws = 0.11, 0.7, random.Random(3)  # noqa: S311 - a load
    cost = CostModel(100, Curve(((1, service_s),)), 0.0, COST.decode, 0.0)
    now_s, arrivals = 0.0, []
    for _ in range(10_000):
        now_s += draws.expovariate(rho / service_s)
        arrivals.append(Arrival(now_s, 100, 1))
    outcome = run(fleet_spec(2, cost=cost), [P, D], arrivals)
    waits = [times(job)[0] - job.arrival.at_s - service_s for job in outcome.jobs]
    assert sum(waits) / len(waits) == pytest.approx(rho * service_s / (2 * (1 - rho)), rel=0.1)


def test_prompts_that_share_steps_end_together_and_first_come_first_served_ones_do_not() -> None:
    arrivals = [Arrival(0.0, 100, 1), Arrival(0.0, 100, 1)]
    shared = run(fleet_spec(2, batching=Batching(100, 50)), [P, D], arrivals)
    served = run(fleet_spec(2), [P, D], arrivals)
    # The first comes alone into the first step; from then on both get 50 tokens a step.
    assert times(shared.jobs[0])[0] > times(served.jobs[0])[0]
    assert times(shared.jobs[1])[0] == pytest.approx(times(served.jobs[1])[0], abs=2 * COST.prefill.at(1))


def test_steps_of_a_ticking_worker_take_whole_ticks() -> None:
    outcome = run(fleet_spec(2, batching=Batching(100, 100, tick_s=0.05)), [P, D], [Arrival(0.0, 30, 5)])
    first_s, finished_s = times(outcome.jobs[0])
    assert first_s == pytest.approx(0.05)  # 41 ms
    assert finished_s - first_s == pytest.approx(MOVES.copy_s(30) + 4 * 0.05)


def test_sequences_beyond_the_places_wait_and_are_let_in_one_after_the_other() -> None:
    outcome = run(fleet_spec(2, max_num_seqs=1), [P, D], [Arrival(0.0, 20, 20), Arrival(0.0, 20, 20)])
    first, second = (times(job)[1] for job in outcome.jobs)
    assert second - first > 19 * COST.decode_s(1, 21)


def test_sequence_without_room_to_grow_is_computed_again_elsewhere_and_loses_no_token() -> None:
    arrivals = [Arrival(0.0, 60, 100), Arrival(0.0, 60, 100)]
    outcome = run(fleet_spec(2, kv_tokens=200), [P, D], arrivals)
    assert all(job.finished_s is not None for job in outcome.jobs)
    assert [job.num_places for job in outcome.jobs] == [1, 2]


def test_requests_that_begin_alike_are_computed_from_where_they_differ() -> None:
    arrivals = [Arrival(0.0, 80, 2, (1, 2, 3, 4, 5)), Arrival(5.0, 80, 2, (1, 2, 3, 4, 6))]
    outcome = run(fleet_spec(2), [P, D], arrivals)
    first, second = outcome.jobs
    assert second.ttft_s == pytest.approx(COST.prefill_s(16, 16 * (64 + 8)))
    assert first.ttft_s == pytest.approx(COST.prefill_s(80, 80 * 40))


def test_what_never_ends_counts_as_outside() -> None:
    outcome = run(fleet_spec(2), [P, P], [Arrival(0.0, 80, 2)])
    assert outcome.attainment == 0.0
    assert outcome.num_inside == 0


def test_request_that_fits_no_worker_is_refused_with_the_numbers() -> None:
    with pytest.raises(ConfigError, match=r"request 0 has 300 tokens, .* holds 200"):
        run(fleet_spec(2, kv_tokens=200), [P, D], [Arrival(0.0, 200, 100)])


def test_run_ends_with_its_last_request_whatever_else_happens_later() -> None:
    outcome = run(fleet_spec(2), [P, D], [Arrival(0.0, 100, 2)])
    assert outcome.end_s == times(outcome.jobs[0])[1]


def test_run_with_a_request_that_never_ends_is_over_when_it_is_given_up() -> None:
    outcome = run(fleet_spec(2), [P, P], [Arrival(1.0, 100, 2)])
    assert outcome.end_s == 1.0 + DRAIN_S
