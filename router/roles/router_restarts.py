"""Restarts routers in turn: the process of each leaves, and whoever owns it starts another one.

The router that is asked goes last, for it is the one that waits for the others.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from core.clock import Clock
from core.errors import BatonError, DeadlineError, StaleEpochError, UnreachableError
from router.departure import RouterDeparture, check_drain_timeout
from router.roles.changes import RoleProgress, RoleStage
from router.roles.restarts import WorkerRestarts
from router.roles.role_log import AuditLog

ACTION = "restart routers"  # in the audit log
LOOK_S = 0.2  # between two looks at a router that is waited for
RETURN_TIMEOUT_S = 120.0  # past the time for its requests: for a new process to load a tokenizer and meet the workers


@dataclass(frozen=True, slots=True)
class RouterStatus:
    """How a router is.

    Attributes:
        router_id: of its process.
        num_requests: under way.
        is_ready: whether it has workers of both roles.
    """

    router_id: str
    num_requests: int
    is_ready: bool


class OtherRouter(Protocol):
    """A router that is not this one."""

    @property
    def name(self) -> str:
        """For people; the same after every start."""
        ...

    async def status(self) -> RouterStatus:
        """How it is.

        Raises:
            UnreachableError: it does not answer.
        """
        ...

    async def leave(self, drain_timeout_s: float | None) -> None:
        """Has it leave; None takes its setting for the time of its requests.

        Raises:
            UnreachableError: it does not answer.
        """
        ...


class RouterRestarts:
    """One rolling restart of routers at a time. Runs on the event loop; it goes on when nobody watches.

    Args:
        router_id: of this router.
        departure: of this router.
        num_requests: requests under way here.
        others: says which other routers run.
        audit: hears of orders and how they end.
        clock: for deadlines and ages.

    Attributes:
        router_id: as given.
    """

    def __init__(
        self,
        router_id: str,
        departure: RouterDeparture,
        *,
        num_requests: Callable[[], int],
        others: Callable[[], Iterable[OtherRouter]],
        audit: AuditLog,
        clock: Clock,
    ) -> None:
        self.router_id = router_id
        self._departure = departure
        self._num_requests = num_requests
        self._others = others
        self._audit = audit
        self._clock = clock
        self._rolling: asyncio.Task[None] | None = None

    async def restart(self, actor: str, drain_timeout_s: float | None) -> AsyncIterator[RoleProgress]:
        """Restarts the others, then has this router leave; the last that is told has `is_last`.

        Args:
            actor: who orders it.
            drain_timeout_s: for requests under way at each to end; None takes the settings.

        Raises:
            InvalidRequestError: that is no time.
            StaleEpochError: a restart is under way, or this router leaves already.
        """
        with self._audit.refusing(actor, ACTION):
            if drain_timeout_s is not None:
                check_drain_timeout(drain_timeout_s)
            if self._departure.is_ordered or (self._rolling is not None and not self._rolling.done()):
                raise StaleEpochError("a restart of routers is under way; wait for its end")
        told: asyncio.Queue[RoleProgress] = asyncio.Queue()
        self._rolling = asyncio.create_task(self._roll(actor, drain_timeout_s, told))
        while True:
            progress = await told.get()
            yield progress
            if progress.is_last:
                return

    async def close(self) -> None:
        """Stops a restart where it is."""
        if self._rolling is not None:
            self._rolling.cancel()
            await asyncio.gather(self._rolling, return_exceptions=True)

    async def _roll(self, actor: str, drain_timeout_s: float | None, told: asyncio.Queue[RoleProgress]) -> None:
        started_s = self._clock.now_s()

        def tell(stage: RoleStage, message: str, *, is_last: bool = False) -> None:
            elapsed_s = self._clock.now_s() - started_s
            told.put_nowait(RoleProgress("", stage, message, 0, elapsed_s, is_last=is_last))

        try:
            for other in self._others():
                before = await other.status()
                tell(RoleStage.ORDERED, f"{other.name} leaves; {before.num_requests} request(s) under way end first")
                await other.leave(drain_timeout_s)
                await self._wait_back(other, before, drain_timeout_s)
                tell(RoleStage.ORDERED, f"{other.name} is back")
        except BatonError as error:
            self._audit.note(actor, ACTION, f"failed: {error.message}")
            tell(RoleStage.FAILED, error.message, is_last=True)
            return
        self._departure.order(drain_timeout_s)
        self._audit.note(actor, ACTION, "done")
        message = f"the router that was asked leaves; {self._num_requests()} request(s) under way end first"
        tell(RoleStage.CHANGED, message, is_last=True)

    async def _wait_back(self, other: OtherRouter, before: RouterStatus, drain_timeout_s: float | None) -> None:
        """Waits until another process of a router is as ready as the one before was. Raises DeadlineError."""
        given_s = self._departure.timeout_s if drain_timeout_s is None else drain_timeout_s
        deadline_s = self._clock.now_s() + given_s + RETURN_TIMEOUT_S
        while self._clock.now_s() < deadline_s:
            try:
                now = await other.status()
            except UnreachableError:
                now = before  # it leaves, or its next process does not listen yet
            if now.router_id != before.router_id and now.is_ready >= before.is_ready:
                return
            await asyncio.sleep(LOOK_S)
        raise DeadlineError(f"{other.name} has not come back within {given_s + RETURN_TIMEOUT_S:g} s; see the logs")


@dataclass(frozen=True, slots=True)
class Restarts:
    """Who restarts what.

    Attributes:
        workers: restarts workers in turn.
        routers: restarts routers in turn.
    """

    workers: WorkerRestarts
    routers: RouterRestarts

    async def close(self) -> None:
        """Stops what is under way where it is."""
        await self.workers.close()
        await self.routers.close()
