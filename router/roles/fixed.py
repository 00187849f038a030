"""Roles that nobody changes: a router that shows what workers say they are for, and refuses every order."""

# ruff: noqa: ARG002 - what is refused is not looked at

from collections.abc import AsyncIterator, Callable, Sequence
from typing import NoReturn

from core.clock import Clock
from core.errors import UnavailableError
from core.ids import WorkerId
from core.request import Role
from core.roles import RoleState
from router.fleet.link import WorkerLink
from router.roles.changes import OperatorAction, RoleChange, RoleProgress, WorkerRole
from router.roles.decision import Decision
from router.roles.snapshot import Limits


class FixedRoles:
    """Implements `router.roles.operations.RoleOperations`.

    Args:
        links: the attached workers, ordered by name.
        limits: what requests are measured by.
        clock: for how long a worker has had its role, as this router knows.
    """

    is_auto = False
    is_leader = False

    def __init__(self, links: Callable[[], Sequence[WorkerLink]], limits: Limits, clock: Clock) -> None:
        self.limits = limits
        self._links = links
        self._clock = clock
        self._met_s: dict[WorkerId, float] = {}

    def workers(self) -> list[WorkerRole]:
        """As their hellos say."""
        now, links = self._clock.now_s(), self._links()
        self._met_s = {link.worker: self._met_s.get(link.worker, now) for link in links}
        return [
            WorkerRole(
                worker=link.worker,
                state=RoleState(link.attached.role, link.attached.role_epoch),
                since_s=now - self._met_s[link.worker],
                last_change=None,
                queued_prompts=link.load.queued_prompts,
                running_sequences=link.load.running_sequences,
                num_leaving=0,
            )
            for link in links
        ]

    def alarms(self) -> list[str]:
        """None: nothing changes."""
        return []

    def changes(self, limit: int = 0) -> Sequence[RoleChange]:
        """None."""
        return ()

    def decisions(self, limit: int = 0) -> Sequence[Decision]:
        """None."""
        return ()

    def actions(self, limit: int = 0) -> Sequence[OperatorAction]:
        """None: what is refused here is not logged."""
        return ()

    def set_role(
        self,
        worker: str,
        role: Role | None,
        actor: str,
        *,
        epoch: int = 0,
        incarnation: int = 0,
    ) -> AsyncIterator[RoleProgress]:
        """Refused."""
        self._refuse()

    def rebalance(
        self,
        num_prefill: int,
        num_decode: int,
        actor: str,
        *,
        is_dry_run: bool = False,
    ) -> AsyncIterator[RoleProgress]:
        """Refused."""
        self._refuse()

    def drain(self, worker: str, actor: str) -> AsyncIterator[RoleProgress]:
        """Refused."""
        self._refuse()

    async def uncordon(self, worker: str, actor: str) -> None:
        """Refused."""
        self._refuse()

    async def set_auto(self, actor: str, *, is_auto: bool) -> list[str]:
        """Refused."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise UnavailableError("this router changes no roles; start the cluster with the roles it is to have")
