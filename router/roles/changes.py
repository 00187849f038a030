"""What became of orders about roles: changes, where an order stands, and the audit log. Plain values."""

from dataclasses import dataclass
from enum import StrEnum

from core.ids import WorkerId
from core.request import Role
from core.roles import RoleState

CONTROLLER = "controller"
"""The actor of changes that no operator ordered."""


class RoleStage(StrEnum):
    """Where a change of role is."""

    ORDERED = "ordered"
    """The worker has been told."""
    CHANGED = "changed"
    """It is in the new role."""
    VERIFIED = "verified"
    """It has executed work of the new role, and nothing of the old one is left."""
    FAILED = "failed"
    """It refused, was lost, or executed nothing of what it was given."""


@dataclass(frozen=True, slots=True)
class RoleChange:
    """One change of one worker's role.

    Attributes:
        order_id: unique.
        worker: whose.
        before: its role until then.
        after: its role from then on.
        stage: how far it has come.
        actor: `CONTROLLER`, or who the operator said to be.
        reason: why it was ordered.
        message: what happened, for people; empty while all is well.
        ordered_at: Unix seconds.
        changed_s: seconds from the order until the worker was in the new role; 0 until then.
        first_work_s: until the first step began that executed work of the new role.
        verified_s: until that was so and nothing of the old role was left.
        num_migrated: requests that went on elsewhere.
        num_returned: requests that were placed again before they had started.
        num_finished: requests that ended where they were.
    """

    order_id: str
    worker: WorkerId
    before: Role
    after: Role
    stage: RoleStage
    actor: str
    reason: str
    message: str = ""
    ordered_at: float = 0.0
    changed_s: float = 0.0
    first_work_s: float = 0.0
    verified_s: float = 0.0
    num_migrated: int = 0
    num_returned: int = 0
    num_finished: int = 0


@dataclass(frozen=True, slots=True)
class WorkerRole:
    """A worker as an operator sees it.

    Attributes:
        worker: who.
        state: what it is for.
        since_s: seconds since it took its role.
        last_change: the latest; None when there was none since this router met it.
        queued_prompts: that it has not started.
        running_sequences: that it generates.
        num_leaving: requests of this router with it that have no place in its role, or are to leave because it is
            drained.
    """

    worker: WorkerId
    state: RoleState
    since_s: float
    last_change: RoleChange | None
    queued_prompts: int
    running_sequences: int
    num_leaving: int


@dataclass(frozen=True, slots=True)
class RoleProgress:
    """Where an order stands.

    Attributes:
        worker: name; empty when it concerns all.
        stage: how far it has come; with `is_last`, how it ended.
        message: one line for people.
        num_leaving: requests that are still to leave the worker.
        elapsed_s: since the order.
        is_last: whether nothing follows.
        change: the change, once there is one.
    """

    worker: str
    stage: RoleStage
    message: str
    num_leaving: int = 0
    elapsed_s: float = 0.0
    is_last: bool = False
    change: RoleChange | None = None


@dataclass(frozen=True, slots=True)
class OperatorAction:
    """An entry of the audit log.

    Attributes:
        at: Unix seconds.
        actor: who.
        action: what was ordered, with its parameters.
        outcome: `done`, `refused` or `failed`, and why.
    """

    at: float
    actor: str
    action: str
    outcome: str
