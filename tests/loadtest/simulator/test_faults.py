"""Workers that die: what they had is placed again, and nothing gets lost."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import ConfigError
from core.ids import WorkerId
from loadtest.arrivals import Arrival
from loadtest.load.faults import Fault, parse_fault
from loadtest.policies.static import StaticRoles
from loadtest.simulator.outcome import Outcome
from loadtest.simulator.simulation import simulate
from router.admission.admission import AdmissionLimits
from router.dispatch.returned import FIRST_RETRY_S
from router.roles.decision import Flip
from tests.loadtest.builders import COST, LIMITS, MOVES, D, FlipsAt, M, P, fleet_spec, times

MANY = [Arrival(0.02 * i, 40 + 20 * (i % 7), 30 + 5 * (i % 5), tuple(range(i % 3))) for i in range(40)]


def faulty(faults: list[Fault], arrivals: list[Arrival], num_workers: int = 4) -> Outcome:
    roles = [P, P, D, D][:num_workers] if num_workers <= 4 else [P] * (num_workers // 2) + [D] * (num_workers // 2)
    return simulate(fleet_spec(num_workers, start_s=1.0), roles, arrivals, StaticRoles(), LIMITS, faults=faults)


def test_prompt_of_a_dead_worker_is_computed_again_elsewhere() -> None:
    outcome = faulty([parse_fault("0.1s kill worker-0")], [Arrival(0.0, 400, 2)])
    again_s = 0.1 + MOVES.order_s + FIRST_RETRY_S
    assert outcome.jobs[0].num_places == 2
    assert times(outcome.jobs[0])[0] == pytest.approx(again_s + COST.completion_s(0, 400))


def test_sequence_of_a_dead_worker_goes_on_where_it_was() -> None:
    whole = faulty([], [Arrival(0.0, 100, 60)]).jobs[0]
    outcome = faulty([parse_fault("1s kill worker-2")], [Arrival(0.0, 100, 60)])
    job = outcome.jobs[0]
    assert times(job)[0] == times(whole)[0]
    again_s = times(job)[1] - times(whole)[1]
    num_generated = job.prompt_tokens - 100
    assert num_generated > 10
    lost = COST.completion_s(0, job.prompt_tokens) + MOVES.order_s + FIRST_RETRY_S + MOVES.copy_s(100)
    # The step under way is lost; the token after the new prompt comes with it.
    assert again_s == pytest.approx(lost, abs=0.05)


def test_dead_worker_comes_back_after_its_start_with_nothing_cached() -> None:
    arrivals = [Arrival(0.0, 100, 2), Arrival(3.0, 100, 2)]
    faults = [parse_fault("0.5s kill worker-0"), parse_fault("0.5s kill worker-1")]
    outcome = faulty(faults, arrivals)
    assert [worker.id for worker in outcome.workers[:2]] == [WorkerId("worker-0", 2), WorkerId("worker-1", 2)]
    assert [loss.worker.incarnation for loss in outcome.losses] == [1, 1]
    assert all(job.finished_s is not None for job in outcome.jobs)


def test_requests_wait_while_a_role_has_no_worker() -> None:
    faults = [parse_fault("0.5s kill worker-0"), parse_fault("0.5s kill worker-1")]
    outcome = faulty(faults, [Arrival(1.0, 100, 2)])
    assert times(outcome.jobs[0])[0] == pytest.approx(1.5 + COST.completion_s(0, 100))


def test_dead_worker_cannot_die_again() -> None:
    outcome = faulty([parse_fault("0.5s kill worker-0"), parse_fault("0.6s kill worker-0")], [Arrival(0.0, 100, 2)])
    assert len(outcome.losses) == 1


def test_flip_of_a_fault_takes_the_other_role() -> None:
    outcome = faulty([parse_fault("0.5s flip worker-0"), parse_fault("0.6s flip worker-2 to mixed")], MANY)
    assert [(at_s, flip) for at_s, flip in outcome.flips] == [
        (0.5, Flip("worker-0", D)),
        (0.6, Flip("worker-2", M)),
    ]


@pytest.mark.parametrize("text", ["1s stop worker-0", "1s kill router", "1s kill worker-9"])
def test_faults_that_cannot_be_simulated_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        faulty([parse_fault(text)], MANY)


@settings(deadline=None, max_examples=40)
@given(
    kills=st.lists(st.tuples(st.integers(1, 400), st.integers(0, 5)), max_size=8),
    flips=st.dictionaries(st.integers(0, 40), st.tuples(st.integers(0, 5), st.sampled_from([P, D, M])), max_size=6),
)
def test_no_request_and_no_room_is_lost_over_deaths_and_flips(
    kills: list[tuple[int, int]], flips: dict[int, tuple[int, object]]
) -> None:
    spec = fleet_spec(6, start_s=0.7, max_num_seqs=3, kv_tokens=1_200)
    policy = FlipsAt({look: [Flip(f"worker-{number}", role)] for look, (number, role) in flips.items()})  # type: ignore[arg-type]
    faults = [parse_fault(f"{at / 100}s kill worker-{number}") for at, number in kills]
    outcome = simulate(
        spec, [P, P, P, D, D, D], MANY, policy, LIMITS, faults=faults, accepted=AdmissionLimits(ttft_s=1e4)
    )
    served = {worker.role for worker in outcome.workers}
    if not (served & {P, M} and served & {D, M}):
        return
    assert all(job.finished_s is not None for job in outcome.jobs)
    assert outcome.tally.num_finished == outcome.tally.num_requests == len(MANY)
    assert all(job.num_generated == job.arrival.answer_tokens for job in outcome.jobs)
    assert all(worker.is_idle and worker.kv_tokens_free == 1_200 for worker in outcome.workers)
