"""Small fleets for the simulator's tests."""

from collections.abc import Sequence

from core.cost import CostModel, Curve
from core.request import Role
from loadtest.arrivals import Arrival
from loadtest.policies.static import StaticRoles
from loadtest.simulator.job import Job
from loadtest.simulator.outcome import Outcome
from loadtest.simulator.simulation import simulate
from loadtest.simulator.spec import Batching, FleetSpec, MoveCosts, WorkerSpec
from loadtest.simulator.topology import Topology
from loadtest.simulator.view import FleetView
from router.roles.decision import Flip
from router.roles.snapshot import Limits

COST = CostModel(
    chunk_tokens=100,
    prefill=Curve(((1, 0.011), (100, 0.11))),
    prefill_pair_s=1e-6,
    decode=Curve(((1, 0.02), (10, 0.029))),
    decode_context_token_s=1e-6,
)
FCFS = Batching(step_tokens=100, chunk_tokens=100)
MOVES = MoveCosts(handoff_s=0.03, token_s=1e-4, pause_s=0.04, order_s=0.002)
LIMITS = Limits(ttft_s=1.0, tpot_s=0.1)
P, D, M = Role.PREFILL, Role.DECODE, Role.MIXED


def fleet_spec(
    num_workers: int,
    *,
    batching: Batching = FCFS,
    max_num_seqs: int = 8,
    kv_tokens: int = 10_000,
    moves: MoveCosts = MOVES,
    cost: CostModel = COST,
    topology: Topology | None = None,
    start_s: float = 60.0,
) -> FleetSpec:
    worker = WorkerSpec(cost, batching, max_num_seqs, kv_tokens, 16)
    return FleetSpec(num_workers, worker, moves, topology, start_s)


def run(spec: FleetSpec, roles: Sequence[Role], arrivals: Sequence[Arrival]) -> Outcome:
    return simulate(spec, roles, arrivals, StaticRoles(), LIMITS)


class FlipsAt(StaticRoles):
    """Flips on given looks, 0.1 s apart."""

    interval_s = 0.1

    def __init__(self, flips: dict[int, list[Flip]]) -> None:
        self._flips = flips
        self._num_looks = 0

    def look(self, fleet: FleetView) -> Sequence[Flip]:  # noqa: ARG002 - see there
        self._num_looks += 1
        return self._flips.get(self._num_looks - 1, [])


def times(job: Job) -> tuple[float, float]:
    assert job.first_token_s is not None
    assert job.finished_s is not None
    return job.first_token_s, job.finished_s
