"""Arrow: Adaptive Scheduling Mechanisms for Disaggregated LLM Inference Architecture (Wu et al., arXiv:2505.11916v2).

Written from the paper's description; where it leaves a number open, the one of the published set-up is taken (see
`loadtest.presets.arrow`). Requests go to the cheapest instance of the right pool that is predicted to keep the limit
(5.3, Algorithm 1); when there is none, an instance changes its pool, and the monitor moves instances to decode when
that is overloaded, or when prefill idles while decode does not (5.5, Algorithms 2 and 3). An instance that changes
its pool finishes what it has. Loads are parts of a limit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from core.request import Role
from loadtest.simulator.job import Job
from loadtest.simulator.view import FleetView
from loadtest.simulator.worker import SimWorker
from router.roles.decision import Flip
from router.roles.snapshot import Limits


@dataclass(frozen=True, slots=True)
class ArrowSettings:
    """Constants of section 5.5.

    Attributes:
        expand: decode load from which on decode gets an instance.
        shrink: load under which a pool is idle.
        num_intervals: of monitoring for which that must hold.
        cooldown_s: between two changes from prefill to decode.
    """

    expand: float = 1.0
    shrink: float = 0.5
    num_intervals: int = 3
    cooldown_s: float = 2.0


class ArrowPolicy:
    """The published adaptive algorithm.

    Args:
        limits: that it predicts against.
        settings: its constants.
    """

    interval_s = 1.0
    moves_work = False

    def __init__(self, limits: Limits, settings: ArrowSettings | None = None) -> None:
        self._limits = limits
        self._settings = settings or ArrowSettings()
        self._num_overloaded = 0
        self._last_to_decode_s = 0.0
        self._token_s: dict[SimWorker, float] = {}  # mean time between tokens in the interval that ended last
        self._generated: dict[SimWorker, tuple[int, float]] = {}  # totals at its end

    # --- Algorithm 1: requests

    def place(self, job: Job, fleet: FleetView) -> tuple[SimWorker, SimWorker | None] | None:
        """The prompt's instance; the other is chosen when the prompt is computed. It accepts every request."""
        pool = fleet.prefill_workers or fleet.workers
        if not pool:
            return None
        costs = {worker: (_decode_tokens(worker), _resident_s(worker) + _prompt_s(worker, job)) for worker in pool}
        able = [worker for worker in pool if costs[worker][1] <= self._limits.ttft_s]
        if not able and self._decode_load(fleet) < self._settings.shrink:
            flipped = self._flip(Role.PREFILL, fleet)
            if flipped is not None:
                return flipped, None
        return min(able or pool, key=lambda worker: (costs[worker], worker.id)), None

    def place_decode(self, job: Job, fleet: FleetView) -> SimWorker:
        """An instance that has changed to decode keeps what it computed; else the cheapest that keeps the limit."""
        assert job.prefill is not None, f"request {job.number} was computed by nobody"
        if job.prefill.role is Role.DECODE:
            return job.prefill
        pool = fleet.decode_workers or fleet.workers
        costs = {
            worker: (
                sum(other.prompt_tokens for other in worker.prompts),
                _decode_tokens(worker) + job.context_tokens - self._most_tokens(worker),
            )
            for worker in pool
        }
        able = [worker for worker in pool if costs[worker][1] <= 0]
        if not able and (flipped := self._flip(Role.DECODE, fleet)) is not None:
            return flipped
        return min(able or pool, key=lambda worker: (costs[worker], worker.id))

    def _most_tokens(self, worker: SimWorker) -> float:
        """Tokens that an instance can attend to in a step inside the limit (MT in 5.3)."""
        cost = worker.spec.cost
        return max(0.0, self._limits.tpot_s - cost.decode.at(1)) / cost.decode_context_token_s

    # --- Algorithm 2: monitoring

    def look(self, fleet: FleetView) -> Sequence[Flip]:
        """One interval of the monitor; what it changes it changes at once."""
        prefill_load = self._prefill_load(fleet)
        decode_load = self._decode_load(fleet)
        is_overloaded = decode_load >= self._settings.expand
        is_unbalanced = prefill_load <= self._settings.shrink <= decode_load
        self._num_overloaded = self._num_overloaded + 1 if is_overloaded or is_unbalanced else 0
        if self._num_overloaded >= self._settings.num_intervals and self._flip(Role.DECODE, fleet) is not None:
            self._num_overloaded = 0
        self._observe(fleet)
        return ()

    def _prefill_load(self, fleet: FleetView) -> float:
        """Prompt work that is resident, as a part of the limit, on average over instances that have any to do."""
        doing = [worker for worker in fleet.workers if worker.role is Role.PREFILL or worker.prompts]
        loads = [_resident_s(worker) / self._limits.ttft_s for worker in doing]
        return sum(loads) / len(loads) if loads else 0.0

    def _decode_load(self, fleet: FleetView) -> float:
        """Time between tokens above the least there can be, as a part of what the limit leaves above it."""
        loads = [self._decode_load_of(worker) for worker in fleet.decode_workers]
        return sum(loads) / len(loads) if loads else 0.0

    def _decode_load_of(self, worker: SimWorker) -> float:
        if not worker.running:
            return 0.0
        least_s = worker.spec.cost.decode.at(1)
        return max(0.0, self._token_s.get(worker, 0.0) - least_s) / (self._limits.tpot_s - least_s)

    def _observe(self, fleet: FleetView) -> None:
        """An interval ends; one without tokens leaves the time between them as it was."""
        for worker in fleet.workers:
            num_before, before_s = self._generated.get(worker, (0, 0.0))
            num_tokens, waited_s = self._generated[worker] = worker.generated
            if num_tokens > num_before:
                self._token_s[worker] = (waited_s - before_s) / (num_tokens - num_before)

    # --- Algorithm 3: changing pools

    def _flip(self, role: Role, fleet: FleetView) -> SimWorker | None:
        """Moves the instance into a role's pool that has least to finish; None when none may go."""
        if role is Role.DECODE and fleet.now_s - self._last_to_decode_s < self._settings.cooldown_s:
            return None
        pool = fleet.prefill_workers if role is Role.DECODE else fleet.decode_workers
        if len(pool) <= 1:
            return None
        chosen = min(pool, key=lambda worker: (_flip_cost(worker), worker.id))
        fleet.change(Flip(chosen.id.name, role))
        if role is Role.DECODE:
            self._last_to_decode_s = fleet.now_s
        return chosen


def _prompt_s(worker: SimWorker, job: Job) -> float:
    """Predicted seconds to compute a prompt, alone: T in 5.3."""
    return worker.spec.cost.completion_s(0, job.prompt_tokens)


def _resident_s(worker: SimWorker) -> float:
    """The same for all prompts that are not computed."""
    return sum(_prompt_s(worker, job) for job in worker.prompts)


def _decode_tokens(worker: SimWorker) -> int:
    """Tokens of the sequences that are generated here, or are to be."""
    return worker.running_context_tokens + sum(job.context_tokens for job in worker.incoming)


def _flip_cost(worker: SimWorker) -> tuple[bool, float]:
    """Instances that do the other half's work anyway go first, then those with least to finish (5.5)."""
    if worker.role is Role.PREFILL:
        return not worker.running, _resident_s(worker)
    return not worker.prompts, _decode_tokens(worker)
