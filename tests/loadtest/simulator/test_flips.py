"""What a change of role costs whom, and that nothing gets lost."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.request import Role
from loadtest.arrivals import Arrival
from loadtest.load.faults import parse_fault
from loadtest.simulator.simulation import simulate
from loadtest.simulator.spec import Batching
from router.roles.decision import Flip
from tests.loadtest.builders import COST, FCFS, LIMITS, MOVES, D, FlipsAt, M, P, fleet_spec, run, times

MANY = [Arrival(0.02 * i, 40 + 20 * (i % 7), 30 + 5 * (i % 5)) for i in range(40)]


def test_running_sequence_of_a_flipped_worker_moves_and_stands_still_for_the_pause_only() -> None:
    arrivals = [Arrival(0.0, 100, 60)]
    policy = FlipsAt({3: [Flip("worker-1", P)]})
    moved = simulate(fleet_spec(3), [P, D, D], arrivals, policy, LIMITS).jobs[0]
    stayed = run(fleet_spec(3), [P, D, D], arrivals).jobs[0]
    assert moved.num_migrations == 1
    assert times(moved)[1] - times(stayed)[1] == pytest.approx(MOVES.pause_s)


def test_sequence_that_ends_while_it_is_copied_does_not_move_and_leaves_its_place() -> None:
    arrivals = [Arrival(0.0, 100, 10), Arrival(1.0, 100, 10)]
    policy = FlipsAt({3: [Flip("worker-1", P)]})
    spec = fleet_spec(3, max_num_seqs=1)
    outcome = simulate(spec, [P, D, D], arrivals, policy, LIMITS)
    assert outcome.num_migrations == 0
    assert outcome.jobs[1].finished_s is not None


def test_sequences_finish_in_place_where_nobody_has_room() -> None:
    arrivals = [Arrival(0.0, 100, 20), Arrival(0.0, 100, 20)]
    policy = FlipsAt({4: [Flip("worker-1", P)]})
    outcome = simulate(fleet_spec(3, max_num_seqs=1), [P, D, D], arrivals, policy, LIMITS)
    assert outcome.num_migrations == 0
    assert all(job.finished_s is not None for job in outcome.jobs)


def test_sequence_handed_over_after_the_flip_is_sent_on_once_somebody_has_room() -> None:
    arrivals = [Arrival(0.0, 100, 60), Arrival(0.0, 100, 200)]
    policy = FlipsAt({2: [Flip("worker-2", P)]})
    outcome = simulate(fleet_spec(3, max_num_seqs=1), [P, D, D], arrivals, policy, LIMITS)
    assert [job.num_migrations for job in outcome.jobs] == [0, 1]


def test_sequence_whose_target_dies_while_it_is_copied_is_sent_elsewhere() -> None:
    policy = FlipsAt({3: [Flip("worker-1", P)]})
    faults = [parse_fault("0.32s kill worker-2")]
    outcome = simulate(fleet_spec(4), [P, D, D, D], [Arrival(0.0, 100, 200)], policy, LIMITS, faults=faults)
    job = outcome.jobs[0]
    assert outcome.losses[0].num_requests == 0
    assert (job.num_places, job.num_migrations) == (1, 1)
    assert job.decode is not None
    assert job.decode.id.name == "worker-3"


def test_queued_prompts_are_placed_again_and_the_started_one_finishes() -> None:
    arrivals = [Arrival(0.0, 400, 2)] + [Arrival(0.01, 100, 2) for _ in range(4)]
    policy = FlipsAt({1: [Flip("worker-0", D)]})
    outcome = simulate(fleet_spec(3), [P, P, D], arrivals, policy, LIMITS)
    started, *others = outcome.jobs
    assert started.num_places == 1
    assert times(started)[0] == pytest.approx(COST.completion_s(0, 400))
    assert {job.num_places for job in others} <= {1, 2}
    assert all(job.finished_s is not None for job in outcome.jobs)


def test_new_role_begins_after_the_order_and_gets_work_at_once() -> None:
    arrivals = [Arrival(0.0, 1000, 2), Arrival(0.15, 100, 2)]
    policy = FlipsAt({1: [Flip("worker-1", M)]})
    outcome = simulate(fleet_spec(2), [P, D], arrivals, policy, LIMITS)
    assert outcome.flips[0][0] == pytest.approx(0.1 + MOVES.order_s)
    assert outcome.jobs[1].ttft_s == pytest.approx(COST.completion_s(0, 100))


def test_same_run_twice_is_the_same_to_the_last_bit() -> None:
    flips = {2: [Flip("worker-0", D)], 5: [Flip("worker-0", P)], 7: [Flip("worker-2", M)]}
    first, second = (simulate(fleet_spec(3), [P, P, D], MANY, FlipsAt(flips), LIMITS) for _ in range(2))
    assert [times(job) for job in first.jobs] == [times(job) for job in second.jobs]


flip_plans = st.dictionaries(
    st.integers(0, 40),
    st.lists(
        st.builds(Flip, st.sampled_from(["worker-0", "worker-1", "worker-2"]), st.sampled_from(Role)), max_size=3
    ),
    max_size=12,
)
batchings = st.sampled_from([FCFS, Batching(100, 50), Batching(400, 100, counts_contexts=True, tick_s=0.01)])


@settings(max_examples=60, deadline=None)
@given(flip_plans, batchings, st.sampled_from([2, 8]), st.sampled_from([1_000, 10_000]))
def test_random_flips_lose_no_request_and_no_token(
    flips: dict[int, list[Flip]], batching: Batching, max_num_seqs: int, kv_tokens: int
) -> None:
    # At the end there is somebody for each half again, so that nothing need wait for ever.
    flips[45] = [Flip("worker-0", P), Flip("worker-1", D), Flip("worker-2", M)]
    spec = fleet_spec(3, batching=batching, max_num_seqs=max_num_seqs, kv_tokens=kv_tokens)
    outcome = simulate(spec, [P, D, M], MANY, FlipsAt(flips), LIMITS)
    assert len(outcome.jobs) == len(MANY)
    for job in outcome.jobs:
        first_s, finished_s = times(job)
        assert job.arrival.at_s < first_s <= finished_s
        assert job.num_generated == job.arrival.answer_tokens
    assert all(worker.is_idle and worker.kv_tokens_free == kv_tokens for worker in outcome.workers)
    num_generated = sum(worker.num_decode_tokens for worker in outcome.workers)
    num_prompts = sum(job.num_places for job in outcome.jobs)
    assert num_generated >= sum(job.arrival.answer_tokens for job in outcome.jobs) - num_prompts
