"""The seam between those who look after roles (gRPC, dashboard) and whoever carries it out."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from core.request import Role
from router.roles.changes import OperatorAction, RoleChange, RoleProgress, WorkerRole
from router.roles.decision import Decision
from router.roles.snapshot import Limits


class RoleOperations(Protocol):
    """What an operator can see and order. On the event loop only.

    Orders raise before the first progress when they cannot be carried out, and have changed nothing then:

    - InvalidRequestError: no such worker, a split that does not add up, or no worker of a half would be left;
    - StaleEpochError: the worker's incarnation or role epoch is not the one that was named, or another order for it
      is under way;
    - UnavailableError: what all routers have to agree on cannot be agreed on now.

    Roles can be ordered at any router, whichever has the controller that decides: of two orders made for one state of
    a worker, the worker takes the first. When it refuses the second, or does not answer, the same errors and
    DeadlineError come later, too. An operator who stops listening to the progress does not stop the order.
    """

    @property
    def limits(self) -> Limits:
        """What the controller works towards."""
        ...

    @property
    def is_auto(self) -> bool:
        """Whether the controller decides."""
        ...

    @property
    def is_leader(self) -> bool:
        """Whether this router's controller is the one that does."""
        ...

    def workers(self) -> list[WorkerRole]:
        """Attached workers, ordered by name."""
        ...

    def alarms(self) -> list[str]:
        """What is wrong with changes and with agreement among routers, one line each."""
        ...

    def changes(self, limit: int = 0) -> Sequence[RoleChange]:
        """The latest, newest first; 0 for all that are kept."""
        ...

    def decisions(self, limit: int = 0) -> Sequence[Decision]:
        """The controller's latest, newest first."""
        ...

    def actions(self, limit: int = 0) -> Sequence[OperatorAction]:
        """The audit log, newest first."""
        ...

    def set_role(
        self, worker: str, role: Role | None, actor: str, *, epoch: int = 0, incarnation: int = 0
    ) -> AsyncIterator[RoleProgress]:
        """Changes a worker's role and pins it; None lifts the pin. `epoch` and `incarnation` of 0 take any."""
        ...

    def rebalance(
        self, num_prefill: int, num_decode: int, actor: str, *, is_dry_run: bool = False
    ) -> AsyncIterator[RoleProgress]:
        """Brings about a split by as few changes as possible, and pins every worker."""
        ...

    def drain(self, worker: str, actor: str) -> AsyncIterator[RoleProgress]:
        """Gives a worker no new work and moves what it has elsewhere."""
        ...

    async def uncordon(self, worker: str, actor: str) -> None:
        """Lets a drained worker have work again."""
        ...

    async def set_auto(self, actor: str, *, is_auto: bool) -> list[str]:
        """Has the controller decide, or not; returns the names of pinned workers."""
        ...
