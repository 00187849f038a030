"""Where the router's table places a fleet's requests, looking at each worker places them, too."""

import random

import pytest

import loadtest.simulator.fleet
from loadtest.arrivals import Arrival
from loadtest.load.faults import parse_fault
from loadtest.policies.controlled import ControlledRoles
from loadtest.simulator.outcome import Outcome
from loadtest.simulator.simulation import simulate
from router.admission.admission import AdmissionLimits
from router.roles.controller import RoleController
from tests.loadtest.builders import LIMITS, D, M, P, fleet_spec


def busy_hour(seed: int) -> list[Arrival]:
    draws = random.Random(seed)  # noqa: S311 - a load, no secret
    arrivals, now_s = [], 0.0
    for _ in range(400):
        now_s += draws.expovariate(40)
        first = 10 * draws.randrange(6)
        shared = tuple(range(first, first + draws.randrange(5)))
        arrivals.append(Arrival(now_s, draws.randint(40, 600), draws.randint(2, 80), shared))
    return arrivals


def simulated(arrivals: list[Arrival]) -> Outcome:
    spec = fleet_spec(12, max_num_seqs=4, kv_tokens=2_000, start_s=2.0)
    faults = [parse_fault("2s kill worker-03"), parse_fault("4s kill worker-09"), parse_fault("5s flip worker-01")]
    return simulate(
        spec,
        [P] * 5 + [D] * 5 + [M] * 2,
        arrivals,
        ControlledRoles(RoleController()),
        LIMITS,
        accepted=AdmissionLimits(ttft_s=3.0),
        faults=faults,
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_table_and_each_worker_place_every_request_alike(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    arrivals = busy_hour(seed)
    each = simulated(arrivals)
    monkeypatch.setattr(loadtest.simulator.fleet, "FEW", 0)
    table = simulated(arrivals)
    assert each.num_inside > 0
    assert each.tally.refused
    assert [(job.first_token_s, job.finished_s, job.is_accepted) for job in table.jobs] == [
        (job.first_token_s, job.finished_s, job.is_accepted) for job in each.jobs
    ]
    assert table.flips == each.flips
