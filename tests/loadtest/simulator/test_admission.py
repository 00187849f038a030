"""Requests are refused when the router's own admission refuses them, by the same numbers."""

from core.ids import WorkerId
from loadtest.arrivals import Arrival
from loadtest.policies.static import StaticRoles
from loadtest.simulator.front_door import TENANT
from loadtest.simulator.simulation import simulate
from router.admission.admission import Admission, AdmissionLimits
from router.admission.outlook import look_ahead
from router.dispatch.placement import DecodeCandidate, PrefillCandidate
from tests.loadtest.builders import COST, LIMITS, D, P, fleet_spec

ACCEPTED = AdmissionLimits(ttft_s=1.0)
BURST = [Arrival(0.0, 60 + 37 * (number % 5), 5) for number in range(40)]


def by_hand(arrivals: list[Arrival], limits: AdmissionLimits) -> list[bool]:
    """Who is accepted of a burst at one prefill worker, which has computed nothing yet, and one decode worker."""
    admission, accepted, pending = Admission(limits), [], 0
    for number, arrival in enumerate(arrivals):
        prefill = [PrefillCandidate(WorkerId("p", 1), pending, COST)]
        # So roomy that nobody waits for a place.
        decode = [DecodeCandidate(WorkerId("d", 1), 0, 0, 1000, 10**6, 16, COST)]
        outlook = look_ahead(prefill, decode, arrival.prompt_tokens, 64.0)
        accepted.append(admission.refusal(TENANT, outlook, 600.0) is None)
        if accepted[-1]:
            pending += arrival.prompt_tokens
            admission.waiting.enter(str(number), TENANT)
    return accepted


def test_burst_is_accepted_up_to_what_the_routers_admission_accepts() -> None:
    spec = fleet_spec(2, max_num_seqs=1000, kv_tokens=10**6)
    outcome = simulate(spec, [P, D], BURST, StaticRoles(), LIMITS, accepted=ACCEPTED)
    expected = by_hand(BURST, ACCEPTED)
    assert [job.is_accepted for job in outcome.jobs] == expected
    assert 0 < sum(expected) < len(BURST)
    assert outcome.tally.refused == {"ttft": len(BURST) - sum(expected)}


def test_refused_request_is_outside_the_limits_and_counted() -> None:
    spec = fleet_spec(2, max_num_seqs=1000, kv_tokens=10**6)
    outcome = simulate(spec, [P, D], BURST, StaticRoles(), LIMITS, accepted=ACCEPTED)
    assert outcome.tally.num_requests == len(BURST)
    assert outcome.num_inside <= sum(job.is_accepted is True for job in outcome.jobs)


def test_room_of_those_that_wait_is_bounded() -> None:
    limits = AdmissionLimits(ttft_s=1e4, max_waiting=7)
    spec = fleet_spec(2, max_num_seqs=1000, kv_tokens=10**6)
    outcome = simulate(spec, [P, D], BURST, StaticRoles(), LIMITS, accepted=limits)
    assert outcome.tally.refused == {"waiting": len(BURST) - 7}


def test_everything_is_accepted_without_admission() -> None:
    outcome = simulate(fleet_spec(2), [P, D], BURST, StaticRoles(), LIMITS)
    assert not outcome.tally.refused
    assert outcome.tally.num_finished == len(BURST)
