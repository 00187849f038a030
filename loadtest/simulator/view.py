"""A simulated fleet as those who decide see it: as a router's books and its workers' reports would have it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from core.cost import StepShape
from core.request import Role
from loadtest.simulator.books import Assigned
from loadtest.simulator.job import Job
from loadtest.simulator.worker import SimWorker
from router.admission.admission import Admission
from router.dispatch.placement import DecodeCandidate, PrefillCandidate
from router.dispatch.placement_table import Prospect
from router.roles.decision import Flip
from router.roles.snapshot import Demand, FleetSnapshot, Limits, WorkerView

BLOCK_TOKENS = 16  # of the router's arithmetic; the simulated pool counts tokens


class FleetView(Protocol):
    """What a policy may look at."""

    @property
    def now_s(self) -> float:
        """The virtual time."""
        ...

    @property
    def limits(self) -> Limits:
        """Of every request."""
        ...

    @property
    def workers(self) -> Sequence[SimWorker]:
        """All of them, ordered by name."""
        ...

    @property
    def prefill_workers(self) -> Sequence[SimWorker]:
        """Those that get prompts."""
        ...

    @property
    def decode_workers(self) -> Sequence[SimWorker]:
        """Those that get sequences."""
        ...

    @property
    def admission(self) -> Admission | None:
        """Decides whether a new request is accepted; None where all are."""
        ...

    @property
    def waiting(self) -> Sequence[Job]:
        """Requests that no worker has been given."""
        ...

    def worker(self, name: str) -> SimWorker:
        """The worker of a name."""
        ...

    def assigned(self, worker: SimWorker) -> Assigned:
        """What was given to a worker to generate."""
        ...

    def present(self, job: Job) -> Mapping[SimWorker, int]:
        """How many leading tokens of a request's prompt workers have; those that have none are left out."""
        ...

    def prospect(self, job: Job) -> Prospect | None:
        """What a request is to expect by the router's placement table; None where the fleet is too small for one."""
        ...

    def snapshot(self) -> FleetSnapshot:
        """What the role controller sees; what happened until now is told once."""
        ...

    def change(self, flip: Flip) -> None:
        """A worker takes a role at once: for those who decide that while they place a request."""
        ...


def prefill_candidate(worker: SimWorker, tpot_limit_s: float, cached_tokens: int) -> PrefillCandidate:
    """A worker as placement sees it; of the prompt it has `cached_tokens` leading tokens."""
    share = 1.0
    if worker.role.serves(Role.DECODE):
        sequences = StepShape(num_sequences=worker.num_running, num_context_tokens=worker.running_context_tokens)
        share = worker.spec.cost.prompt_share(sequences, tpot_limit_s)
    return PrefillCandidate(worker.id, worker.pending_prompt_tokens, worker.spec.cost, cached_tokens, share)


def decode_candidate(worker: SimWorker, assigned: Assigned, present_tokens: int) -> DecodeCandidate:
    """A worker as placement sees it; of the prompt it has `present_tokens` leading tokens."""
    return DecodeCandidate(
        worker=worker.id,
        num_sequences=assigned.num_sequences,
        num_context_tokens=max(worker.running_context_tokens, assigned.context_tokens),
        max_num_seqs=worker.spec.max_num_seqs,
        free_blocks=(worker.kv_tokens_free - assigned.promised_tokens) // BLOCK_TOKENS,
        block_tokens=BLOCK_TOKENS,
        cost=worker.spec.cost,
        present_tokens=present_tokens,
        num_before=assigned.num_sequences,
    )


def fleet_snapshot(fleet: FleetView, ordered: Collection[SimWorker], demand: Demand) -> FleetSnapshot:
    """A fleet as the role controller sees it.

    Args:
        fleet: which.
        ordered: workers that have been told to take another role, and have not taken it.
        demand: since the snapshot before.
    """
    unstarted = [job for worker in fleet.workers if (job := worker.oldest_queued) is not None]
    oldest_s = min((job.arrival.at_s for job in (*unstarted, *fleet.waiting)), default=fleet.now_s)
    return FleetSnapshot(
        now_s=fleet.now_s,
        workers=tuple(
            worker_view(worker, fleet.assigned(worker), is_changing=worker in ordered or _is_leaving(worker))
            for worker in fleet.workers
        ),
        demand=demand,
        limits=fleet.limits,
        waiting_prompts=len(fleet.waiting),
        oldest_waiting_s=fleet.now_s - oldest_s,
    )


def _is_leaving(worker: SimWorker) -> bool:
    """Whether it still has what has no place in its role."""
    has_sequences = not worker.role.serves(Role.DECODE) and bool(worker.running or worker.incoming)
    return has_sequences or (not worker.role.serves(Role.PREFILL) and bool(worker.prompts))


def worker_view(worker: SimWorker, assigned: Assigned, *, is_changing: bool) -> WorkerView:
    """A worker as the role controller sees it."""
    return WorkerView(
        name=worker.id.name,
        role=worker.role,
        is_pinned=False,
        is_cordoned=False,
        is_changing=is_changing,
        since_s=worker.since_s,
        cost=worker.spec.cost,
        queued_prompts=worker.num_queued,
        pending_prompt_tokens=worker.pending_prompt_tokens,
        running_sequences=assigned.num_sequences,
        context_tokens=max(worker.running_context_tokens, assigned.context_tokens),
        max_num_seqs=worker.spec.max_num_seqs,
        kv_tokens=worker.spec.kv_tokens,
    )
