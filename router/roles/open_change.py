"""One change of a worker's role on its way: from the order to the proof that the worker does what it is for now."""

import asyncio
from dataclasses import dataclass, field, replace

from core.events import WorkerLoad
from core.request import Role
from core.roles import RoleOrder, RoleState
from router.fleet.link import WorkerLink
from router.roles.changes import RoleChange, RoleStage

ANSWER_TIMEOUT_S = 10.0  # a worker answers between two steps; by then it would be taken for dead, too
PROOF_TIMEOUT_S = 10.0  # a worker with work of its role executes it in the next step, however long that is


@dataclass(slots=True)
class Sent:
    """An order that has not been answered.

    Attributes:
        link: who got it.
        order: what it says.
        sent_s: when, on the clock.
        answer: the state that it led to, or why it led nowhere.
    """

    link: WorkerLink
    order: RoleOrder
    sent_s: float
    answer: "asyncio.Future[RoleState]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(slots=True)
class OpenChange:
    """A change that is neither verified nor failed.

    Attributes:
        link: whose role.
        order: what it was sent.
        change: how far it has come.
        ordered_s: when it was ordered, on the clock.
        has_worked: whether the worker has executed work of the new role.
        is_alarm: whether it has failed by the worker's fault.
        idle_since_s: since when the worker has had no work of its new role that it has not shown; None while it has.
        given_since_s: since when it has had such work; None while it has none.
        counts_before: of the link when it was ordered: requests migrated, returned, finished.
    """

    link: WorkerLink
    order: RoleOrder
    change: RoleChange
    ordered_s: float
    has_worked: bool = False
    is_alarm: bool = False
    idle_since_s: float | None = None
    given_since_s: float | None = None
    counts_before: tuple[int, int, int] = field(init=False)

    def __post_init__(self) -> None:
        self.counts_before = (self.link.num_migrated, self.link.num_returned, self.link.num_finished)

    @property
    def is_over(self) -> bool:
        """Whether nothing more happens to it."""
        return self.change.stage in (RoleStage.VERIFIED, RoleStage.FAILED)

    @property
    def epoch(self) -> int:
        """The role epoch that it begins."""
        return self.order.epoch + 1

    def on_changed(self, now_s: float) -> None:
        """The worker is in the new role."""
        self.change = replace(self.change, stage=RoleStage.CHANGED, changed_s=now_s - self.ordered_s)

    def fail(self, message: str, *, is_alarm: bool = False) -> None:
        """It will come to nothing, or nobody can tell; an alarm when the worker is there and does not do its part."""
        self.change = replace(self.change, stage=RoleStage.FAILED, message=message)
        self.is_alarm = is_alarm

    @property
    def is_alarming(self) -> bool:
        """Whether it failed by the worker's fault, and the worker has not made up for it since."""
        load = self.link.load
        has_made_up = load.role_epoch == self.epoch and has_shown(load, self.change.after)
        return self.is_alarm and not has_made_up

    def on_load(self, load: WorkerLoad, num_leaving: int, now_s: float) -> None:
        """Looks at what the worker has executed since the epoch began, and at what still leaves it."""
        if self.change.stage is not RoleStage.CHANGED or load.role_epoch != self.epoch:
            return
        if not self.has_worked and has_shown(load, self.change.after):
            self.has_worked = True
            first_work_s = self.change.changed_s + load.epoch_first_work_s  # from when the worker had the order
            self.change = replace(self.change, first_work_s=first_work_s)
        if self.has_worked and not num_leaving:
            self.change = replace(self.change, stage=RoleStage.VERIFIED, verified_s=now_s - self.ordered_s)

    def expire(self, now_s: float) -> None:
        """Fails it when the worker has work of its new role and executes none."""
        if self.change.stage is not RoleStage.CHANGED or self.has_worked:
            return
        if not has_been_given(self.link, self.change.after):
            self.given_since_s = None
            self.idle_since_s = now_s if self.idle_since_s is None else self.idle_since_s
            return
        self.idle_since_s = None
        self.given_since_s = now_s if self.given_since_s is None else self.given_since_s
        if now_s - self.given_since_s >= PROOF_TIMEOUT_S:
            self.fail(
                f"the change to {self.change.after} changed nothing: the worker has had work of it for "
                f"{PROOF_TIMEOUT_S:g} s and executed none",
                is_alarm=True,
            )

    def count(self, num_migrated: int, num_returned: int, num_finished: int) -> None:
        """Takes in what became of the requests that had to leave, since the order."""
        self.change = replace(
            self.change, num_migrated=num_migrated, num_returned=num_returned, num_finished=num_finished
        )


def has_shown(load: WorkerLoad, role: Role) -> bool:
    """Whether a worker has executed work of a role in its epoch."""
    halves = ((Role.PREFILL, load.epoch_prompt_tokens), (Role.DECODE, load.epoch_decode_tokens))
    return any(role.serves(half) and num_tokens for half, num_tokens in halves)


def has_been_given(link: WorkerLink, role: Role) -> bool:
    """Whether a worker has work of a role that it could execute now."""
    has_prompts = link.assigned_prompt_tokens or link.load.pending_prompt_tokens
    return bool(
        (role.serves(Role.PREFILL) and has_prompts) or (role.serves(Role.DECODE) and link.load.running_sequences)
    )
