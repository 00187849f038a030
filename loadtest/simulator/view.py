"""A simulated fleet as those who decide see it: as a router's books and its workers' reports would have it."""

from collections.abc import Sequence
from typing import Protocol

from core.cost import StepShape
from core.request import Role
from loadtest.simulator.job import Job
from loadtest.simulator.worker import SimWorker
from router.dispatch.placement import DecodeCandidate, PrefillCandidate
from router.roles.decision import Flip
from router.roles.snapshot import FleetSnapshot, Limits, WorkerView

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
    def waiting(self) -> Sequence[Job]:
        """Requests that no worker has been given."""
        ...

    def worker(self, name: str) -> SimWorker:
        """The worker of a name."""
        ...

    def assigned(self, worker: SimWorker) -> "Assigned":
        """What was given to a worker to generate."""
        ...

    def snapshot(self) -> FleetSnapshot:
        """What the role controller sees; what happened until now is told once."""
        ...

    def change(self, flip: Flip) -> None:
        """A worker takes a role at once: for those who decide that while they place a request."""
        ...


class Assigned:
    """A router's books on one decode worker, see `router.dispatch.ledger`.

    Attributes:
        num_sequences: that it generates or is to generate.
        context_tokens: of their prompts.
        promised_tokens: of prompts for which it has no place yet.
    """

    __slots__ = ("context_tokens", "num_sequences", "promised_tokens")

    def __init__(self) -> None:
        self.num_sequences = 0
        self.context_tokens = 0
        self.promised_tokens = 0


def prefill_candidate(worker: SimWorker, job: Job, tpot_limit_s: float) -> PrefillCandidate:
    """A worker as placement sees it."""
    cached = worker.cache.num_tokens(job.arrival.block_ids, job.prompt_tokens)
    share = 1.0
    if worker.role.serves(Role.DECODE):
        sequences = StepShape(num_sequences=len(worker.running), num_context_tokens=worker.running_context_tokens)
        share = worker.spec.cost.prompt_share(sequences, tpot_limit_s)
    return PrefillCandidate(worker.id, worker.pending_prompt_tokens, worker.spec.cost, cached, share)


def decode_candidate(worker: SimWorker, assigned: Assigned, job: Job) -> DecodeCandidate:
    """A worker as placement sees it."""
    return DecodeCandidate(
        worker=worker.id,
        num_sequences=assigned.num_sequences,
        num_context_tokens=max(worker.running_context_tokens, assigned.context_tokens),
        max_num_seqs=worker.spec.max_num_seqs,
        free_blocks=(worker.kv_tokens_free - assigned.promised_tokens) // BLOCK_TOKENS,
        block_tokens=BLOCK_TOKENS,
        cost=worker.spec.cost,
        present_tokens=worker.cache.num_tokens(job.arrival.block_ids, job.prompt_tokens),
    )


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
