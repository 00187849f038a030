"""What the dashboard shows, as plain values that become JSON. Not how it gets there: `router.dashboard.feed`."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from core.request import Role
from core.transfers import PairReport
from router.fleet.link import WorkerLink
from router.meter import MeterReport, RequestMeter
from router.roles.changes import OperatorAction, RoleChange, RoleStage, WorkerRole
from router.roles.decision import Decision
from router.roles.operations import RoleOperations
from router.roles.snapshot import Limits

HISTORY_S = 3600.0
MAX_CHANGES = 200  # of the last hour; about one every 18 s, far more than a controller with a dwell time makes
MAX_ACTIONS = 12


class FleetView(Protocol):
    """What the dashboard asks of the fleet."""

    def links(self) -> Sequence[WorkerLink]:
        """Attached workers, ordered by name."""
        ...

    def silent_s(self, link: WorkerLink) -> float:
        """Seconds since a worker was last heard."""
        ...


@dataclass(frozen=True, slots=True)
class WorkerCard:
    """A worker.

    Attributes:
        name: stable over its restarts.
        incarnation: of its process; an order that names another is refused.
        epoch: of its role; likewise.
        role: what it is for.
        is_pinned: whether an operator chose the role.
        is_cordoned: whether it gets no new work.
        is_changing: whether it has not answered an order for another role yet, or requests still leave it since.
        since_s: seconds since it took the role.
        silent_s: seconds since it was last heard.
        queued_prompts: that it has not started.
        pending_prompt_tokens: that it still has to compute.
        running_sequences: that it generates.
        max_num_seqs: most it generates at once.
        num_leaving: requests that have no place in its role any more.
        kv_blocks: of its pool.
        kv_blocks_used: of these, those that sequences hold or that are reserved for them.
        kv_blocks_cached: of these, those that can be given away, but hold a known prefix.
        prompt_tokens_computed: since its process started.
        decode_tokens_computed: since its process started.
        migrations_open: sequences that are on their way to other workers.
        migrations_sent: sequences that went on elsewhere, since its process started.
        migrations_failed: those that stayed, because a target refused or a transfer failed.
        migration_longest_pause_s: the longest time that one stood still.
    """

    name: str
    incarnation: int
    epoch: int
    role: Role
    is_pinned: bool
    is_cordoned: bool
    is_changing: bool
    since_s: float
    silent_s: float
    queued_prompts: int
    pending_prompt_tokens: int
    running_sequences: int
    max_num_seqs: int
    num_leaving: int
    kv_blocks: int
    kv_blocks_used: int
    kv_blocks_cached: int
    prompt_tokens_computed: int
    decode_tokens_computed: int
    migrations_open: int
    migrations_sent: int
    migrations_failed: int
    migration_longest_pause_s: float

    @classmethod
    def of(cls, link: WorkerLink, known: WorkerRole, silent_s: float) -> "WorkerCard":
        """The card of an attached worker."""
        load, change = link.load, known.last_change
        return cls(
            name=link.worker.name,
            incarnation=link.worker.incarnation,
            epoch=known.state.epoch,
            role=known.state.role,
            is_pinned=known.state.is_pinned,
            is_cordoned=known.state.gets_no_work,
            is_changing=change is not None and _is_under_way(change, known.num_leaving),
            since_s=known.since_s,
            silent_s=silent_s,
            queued_prompts=load.queued_prompts,
            pending_prompt_tokens=load.pending_prompt_tokens,
            running_sequences=load.running_sequences,
            max_num_seqs=link.attached.max_num_seqs,
            num_leaving=known.num_leaving,
            kv_blocks=load.blocks_total,
            kv_blocks_used=load.blocks_running + load.blocks_leased + load.blocks_quarantined,
            kv_blocks_cached=load.blocks_cached,
            prompt_tokens_computed=load.prompt_tokens_computed,
            decode_tokens_computed=load.decode_tokens_computed,
            migrations_open=load.migrations_open,
            migrations_sent=load.migrations_sent,
            migrations_failed=load.migrations_failed,
            migration_longest_pause_s=load.migration_longest_pause_s,
        )


def _is_under_way(change: RoleChange, num_leaving: int) -> bool:
    """A change that waits for nothing but a proof is not: an idle worker may give none for hours."""
    return change.stage is RoleStage.ORDERED or (change.stage is RoleStage.CHANGED and num_leaving > 0)


@dataclass(frozen=True, slots=True)
class PairTotals:
    """KV that has gone from one worker to another, in handoffs and migrations, since the first one's process started.

    Attributes:
        source: who sends.
        target: who gets.
        num_handoffs: that the target took over.
        num_bytes: that moved.
        num_failed: handoffs that failed.
    """

    source: str
    target: str
    num_handoffs: int
    num_bytes: int
    num_failed: int

    @classmethod
    def of(cls, link: WorkerLink, pair: PairReport) -> "PairTotals":
        """What a worker says of one of its peers."""
        stats = pair.stats
        return cls(
            link.worker.name, pair.peer.name, stats.num_handoffs, stats.num_bytes, sum(stats.failures.values())
        )


@dataclass(frozen=True, slots=True)
class DecisionSeen:
    """The controller's latest decision, as in `router.roles.decision.Decision`.

    Attributes:
        reason: one sentence.
        num_prefill: workers for prompts then.
        num_decode: workers for tokens then.
        wanted_prefill: after its flips.
        wanted_decode: after its flips.
        numbers: what it rests on, by name with the unit at its end; those that JSON has no word for are left out.
    """

    reason: str
    num_prefill: int
    num_decode: int
    wanted_prefill: int
    wanted_decode: int
    numbers: Mapping[str, float]

    @classmethod
    def of(cls, decision: Decision) -> "DecisionSeen":
        """What the page shows of a decision."""
        return cls(
            decision.reason,
            decision.num_prefill,
            decision.num_decode,
            decision.wanted_prefill,
            decision.wanted_decode,
            {name: value for name, value in decision.numbers.items() if math.isfinite(value)},
        )


@dataclass(frozen=True, slots=True)
class DashboardState:
    """Everything the page shows at one time.

    Attributes:
        at: Unix seconds.
        model: the name clients use.
        is_auto: whether the controller decides on roles.
        is_leader: whether this router's controller is the one that does.
        can_operate: whether orders over HTTP are possible at all: with an operator's key.
        limits: what the controller works towards.
        alarms: what is wrong, one line each.
        workers: attached ones, ordered by name.
        requests: what they experience.
        pairs: of workers between which KV has moved.
        changes: of roles in the last hour, newest first.
        decision: the controller's latest; None before the first.
        actions: what operators have ordered, newest first.
    """

    at: float
    model: str
    is_auto: bool
    is_leader: bool
    can_operate: bool
    limits: Limits
    alarms: Sequence[str]
    workers: Sequence[WorkerCard]
    requests: MeterReport
    pairs: Sequence[PairTotals]
    changes: Sequence[RoleChange]
    decision: DecisionSeen | None
    actions: Sequence[OperatorAction]


class StateSource:
    """Builds states.

    Args:
        model: the name clients use.
        fleet: the workers.
        roles: what they are for.
        meter: what requests experience.
        unix_time: `time.time`, or a test's.
        can_operate: see `DashboardState`.
    """

    def __init__(
        self,
        model: str,
        fleet: FleetView,
        roles: RoleOperations,
        meter: RequestMeter,
        unix_time: Callable[[], float],
        *,
        can_operate: bool,
    ) -> None:
        self._model = model
        self._fleet = fleet
        self._roles = roles
        self._meter = meter
        self._unix_time = unix_time
        self._can_operate = can_operate

    def role_marks(self) -> object:
        """A value that differs from the one before when a role, or a change of one, has."""
        changes = [(change.order_id, change.stage) for change in self._roles.changes(MAX_CHANGES)]
        workers = [(known.worker, known.state) for known in self._roles.workers()]
        return changes, workers, self._roles.is_auto, self._roles.alarms()

    def build(self) -> DashboardState:
        """The state now."""
        at, links = self._unix_time(), self._fleet.links()
        known = {role.worker: role for role in self._roles.workers()}
        return DashboardState(
            at=at,
            model=self._model,
            is_auto=self._roles.is_auto,
            is_leader=self._roles.is_leader,
            can_operate=self._can_operate,
            limits=self._roles.limits,
            alarms=self._roles.alarms(),
            workers=[
                WorkerCard.of(link, known[link.worker], self._fleet.silent_s(link))
                for link in links
                if link.worker in known
            ],
            requests=self._meter.report(),
            pairs=[PairTotals.of(link, pair) for link in links for pair in link.transfers.sent],
            changes=[change for change in self._roles.changes(MAX_CHANGES) if change.ordered_at > at - HISTORY_S],
            decision=next((DecisionSeen.of(decision) for decision in self._roles.decisions(1)), None),
            actions=self._roles.actions(MAX_ACTIONS),
        )
