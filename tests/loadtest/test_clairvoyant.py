from loadtest.arrivals import Segment, segmented_arrivals
from loadtest.clairvoyant import Search
from loadtest.load.faults import parse_fault
from loadtest.policies.by_name import policy_by_name, split_names
from loadtest.simulator.simulation import simulate
from router.admission.admission import AdmissionLimits
from router.roles.snapshot import Limits
from tests.loadtest.builders import fleet_spec

SWING = (Segment(10.0, (20, 40), (40, 60)), Segment(10.0, (500, 700), (2, 4)))
LIMITS = Limits(ttft_s=1.5, tpot_s=0.06)
ARRIVALS = segmented_arrivals(SWING, 4.0, 5)


def test_clairvoyant_is_as_good_as_every_split_and_as_the_controller() -> None:
    spec = fleet_spec(4)
    best = Search(window_s=2.0, num_tries=40).best(spec, ARRIVALS, LIMITS, seed=1)
    for name in [*split_names(4), "auto"]:
        roles, policy = policy_by_name(name, 4, LIMITS)
        assert best.num_inside >= simulate(spec, roles, ARRIVALS, policy, LIMITS).num_inside


def test_same_seed_finds_the_same() -> None:
    found = [Search(window_s=5.0, num_tries=10).best(fleet_spec(4), ARRIVALS, LIMITS, seed=2) for _ in range(2)]
    assert found[0].flips == found[1].flips
    assert found[0].num_inside == found[1].num_inside


def test_clairvoyant_has_the_faults_and_the_admission_of_the_others() -> None:
    faults = (parse_fault("3s kill worker-1"), parse_fault("9s kill worker-2"))
    search = Search(num_tries=3, accepted=AdmissionLimits(ttft_s=0.2), faults=faults)
    found = search.best(fleet_spec(4, start_s=1.0), ARRIVALS, LIMITS, seed=1)
    assert [loss.at_s for loss in found.losses] == [3.0, 9.0]
    assert found.tally.refused


def test_clairvoyant_of_no_request_has_none() -> None:
    assert Search(num_tries=3).best(fleet_spec(2), [], LIMITS, seed=1).tally.num_requests == 0
