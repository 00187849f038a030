"""Restarts workers in turn while they serve: each leaves, comes back as a new process, and the next one goes.

The worker ends its process by itself; whoever owns it starts it again. Nothing of that is here.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, field

from core.clock import Clock
from core.errors import BatonError, DeadlineError, InvalidRequestError, StaleEpochError, UnavailableError
from core.request import Role
from core.roles import RoleState
from router.departure import check_drain_timeout
from router.fleet.by_name import link_named
from router.fleet.fleet import Fleet
from router.fleet.link import WorkerLink
from router.roles.changes import CONTROLLER, RoleProgress, RoleStage
from router.roles.open_change import ANSWER_TIMEOUT_S
from router.roles.orders import RoleOrders
from router.roles.role_log import AuditLog
from router.roles.split import FLOOR_WORDS, halves_lost
from router.roles.watch import is_news

LOOK_S = 0.1  # between two looks at a worker that is waited for
LEAVE_SLACK_S = 30.0  # past its drain timeout: what peers read ends, and a step that is under way, which may be long
RETURN_TIMEOUT_S = 600.0  # for a new process to load the model, as at the first start
REASON = "another worker is being restarted"  # of a stand-in's changes of role


@dataclass(frozen=True, slots=True)
class RestartOrder:
    """What an operator wants restarted.

    Attributes:
        workers: names; empty for all attached ones.
        drain_timeout_s: for the work of each to go elsewhere or to end, before it is placed again; None takes the
            router's setting.
        max_unavailable: so many are away at once at most; at least 1.
        is_forced: whether a half may be left without a worker meanwhile: requests wait.
    """

    workers: Sequence[str]
    drain_timeout_s: float | None = None
    max_unavailable: int = 1
    is_forced: bool = False

    def __post_init__(self) -> None:
        if self.max_unavailable < 1:
            raise InvalidRequestError(f"{self.max_unavailable} workers may be unavailable; at least 1 has to be")
        if self.drain_timeout_s is not None:
            check_drain_timeout(self.drain_timeout_s)


@dataclass(slots=True)
class Roll:
    """A rolling restart under way.

    Attributes:
        order: what is wanted.
        left: names of workers whose turn has not come.
        away: names of those that have been told to leave and are not back.
        started_s: on the clock.
        latest: where each worker stands, by name, in the order of their turns.
        num_done: workers that are back.
        error: why it stopped before its end; None while it goes on, and when it has succeeded.
        end: how it ended; None while it goes on.
    """

    order: RestartOrder
    left: deque[str]
    started_s: float
    away: set[str] = field(default_factory=set)
    latest: dict[str, RoleProgress] = field(default_factory=dict)
    num_done: int = 0
    error: BatonError | None = None
    end: RoleProgress | None = None


class WorkerRestarts:
    """One rolling restart at a time. Runs on the event loop; it goes on when nobody watches.

    A worker that is the last of a half has another one stand in for it, which takes both halves until it is back.

    Args:
        fleet: the workers there are.
        orders: changes of role.
        audit: hears of orders and how they end.
        clock: for deadlines and ages.
        drain_timeout_s: of each worker, where an order does not say it.
    """

    def __init__(
        self, fleet: Fleet, orders: RoleOrders, audit: AuditLog, clock: Clock, drain_timeout_s: float
    ) -> None:
        self._fleet = fleet
        self._orders = orders
        self._audit = audit
        self._clock = clock
        self._drain_timeout_s = drain_timeout_s
        self._rolling: asyncio.Task[None] | None = None

    async def restart(self, order: RestartOrder, actor: str) -> AsyncIterator[RoleProgress]:
        """Restarts workers, and tells how that goes, until it has ended; the last one has `is_last`.

        Raises:
            InvalidRequestError: no such worker, or a half would be without one and that is not forced.
            StaleEpochError: a restart is under way.
        """
        names = list(dict.fromkeys(order.workers)) or [link.worker.name for link in self._fleet.links()]
        action = f"restart {', '.join(names) or 'all'}"
        with self._audit.refusing(actor, action):
            if self._rolling is not None and not self._rolling.done():
                raise StaleEpochError("a restart of workers is under way; wait for its end")
            for name in names:
                self._stand_in(link_named(self._fleet.links(), name), order, away=())
        roll = Roll(order, deque(names), self._clock.now_s())
        self._rolling = asyncio.create_task(self._run(roll, actor, action))
        async for progress in self._watch(roll):
            yield progress

    async def close(self) -> None:
        """Stops a restart where it is."""
        if self._rolling is not None:
            self._rolling.cancel()
            await asyncio.gather(self._rolling, return_exceptions=True)

    # --- the whole

    async def _run(self, roll: Roll, actor: str, action: str) -> None:
        lanes = min(roll.order.max_unavailable, len(roll.left))
        await asyncio.gather(*(self._lane(roll) for _ in range(lanes)))
        elapsed_s = self._clock.now_s() - roll.started_s
        stage, message = RoleStage.VERIFIED, f"{roll.num_done} worker(s) restarted"
        if roll.error is not None:
            num_left = len(roll.left)
            stage, message = (
                RoleStage.FAILED,
                f"{roll.error.message}; {roll.num_done} restarted, {num_left} left alone",
            )
        self._audit.note(actor, action, "done" if roll.error is None else f"failed: {message}")
        roll.end = RoleProgress("", stage, message, 0, elapsed_s, is_last=True)

    async def _lane(self, roll: Roll) -> None:
        """Restarts one worker after another, until all have been or one has failed."""
        while roll.left and roll.error is None:
            name = roll.left.popleft()
            try:
                await self._restart_one(roll, name)
                roll.num_done += 1
            except BatonError as error:
                self._tell(roll, name, RoleStage.FAILED, error.message)
                roll.error = error

    async def _watch(self, roll: Roll) -> AsyncIterator[RoleProgress]:
        told: dict[str, RoleProgress] = {}
        while True:
            is_over = roll.end is not None
            for name, progress in roll.latest.items():
                if is_news(told.get(name), progress):
                    told[name] = progress
                    yield progress
            if is_over:
                assert roll.end is not None, "it is not taken back"
                yield roll.end
                return
            await asyncio.sleep(LOOK_S)

    # --- one worker

    async def _restart_one(self, roll: Roll, name: str) -> None:
        link = link_named(self._fleet.links(), name)
        stand_in = self._stand_in(link, roll.order, roll.away)
        roll.away.add(name)
        before = link.role_state
        covered = None if stand_in is None else await self._cover(roll, name, stand_in)
        try:
            await self._see_off(roll, link)
            await self._welcome(roll, link, before)
        finally:
            roll.away.discard(name)
            if stand_in is not None and covered is not None:
                standing = stand_in.worker.name
                await self._send(standing, covered.role, is_pinned=covered.is_pinned)
                self._tell(roll, standing, RoleStage.VERIFIED, f"{standing} is {covered.role} again")

    def _stand_in(self, link: WorkerLink, order: RestartOrder, away: Collection[str]) -> WorkerLink | None:
        """Who takes both halves while a worker is away; None when nobody need, or when it is forced and nobody can.

        Args:
            link: who is to go.
            order: the restart's.
            away: names of workers that go or have gone already.

        Raises:
            InvalidRequestError: somebody must and nobody can.
        """
        states = {name: state for name, state in self._orders.states().items() if name not in away}
        lost = halves_lost(states, link.worker.name, link.state_to_be.leaving())
        if not lost:
            return None
        others = [
            each
            for each in self._fleet.links()
            if each is not link and each.worker.name in states and not each.state_to_be.gets_no_work
        ]
        if others:
            return min(others, key=lambda each: (each.state_to_be.is_pinned, each.num_sequences, each.worker))
        if order.is_forced:
            return None
        raise InvalidRequestError(
            f"worker {link.worker.name} is the last that {FLOOR_WORDS[lost[0]]} and no other can stand in for it; "
            "with --force requests wait until it is back"
        )

    async def _cover(self, roll: Roll, name: str, stand_in: WorkerLink) -> RoleState:
        """Has another worker take both halves; returns what it was."""
        before = stand_in.state_to_be
        standing = stand_in.worker.name
        self._tell(roll, standing, RoleStage.ORDERED, f"{standing} stands in for {name} meanwhile")
        await self._send(standing, Role.MIXED, is_pinned=True)
        return before

    async def _see_off(self, roll: Roll, link: WorkerLink) -> None:
        """Has a worker leave, and waits until it has gone."""
        name, ordered_s = link.worker.name, roll.order.drain_timeout_s
        timeout_s = self._drain_timeout_s if ordered_s is None else ordered_s
        self._tell(roll, name, RoleStage.ORDERED, f"{name} has been told to leave")
        link.leave(timeout_s)

        def is_gone() -> bool:
            if link.is_leaving and (num_left := self._orders.num_leaving(link)):
                message = f"{name} leaves; {num_left} request(s) are still there"
                self._tell(roll, name, RoleStage.ORDERED, message, num_left)
            return link not in self._fleet.links()

        await self._until(is_gone, timeout_s + LEAVE_SLACK_S, f"worker {link.worker} has not left")
        if not link.is_leaving:
            raise UnavailableError(f"worker {link.worker} was lost before it could leave")

    async def _welcome(self, roll: Roll, old: WorkerLink, before: RoleState) -> None:
        """Waits until a worker's next process is attached, is what the one before was, and has said that it works."""
        name = old.worker.name
        self._tell(roll, name, RoleStage.CHANGED, f"{name} has left; its next process starts")
        wanted = before.role, before.is_cordoned, before.is_pinned

        def is_back() -> bool:
            link = self._next_of(old)
            if link is None or link.order is not None or not link.load.blocks_total:
                return False
            state = link.role_state
            return (state.role, state.is_cordoned, state.is_pinned) == wanted

        await self._until(is_back, RETURN_TIMEOUT_S, f"no new process of worker {name} has come as {before.role}")
        self._tell(roll, name, RoleStage.VERIFIED, f"{name} is back as {before.role}")

    def _next_of(self, old: WorkerLink) -> WorkerLink | None:
        links = self._fleet.links()
        return next((link for link in links if link.worker.supersedes(old.worker)), None)

    async def _send(self, name: str, role: Role, *, is_pinned: bool) -> None:
        """Orders a role, again while another order for the worker is under way, or it is just not there.

        Raises:
            BatonError: it was lost, does not answer, or others change it all the time.
        """
        deadline_s = self._clock.now_s() + ANSWER_TIMEOUT_S
        state: RoleState | None = None
        while state is None:
            try:
                link = link_named(self._fleet.links(), name)
                state = await self._orders.send(link, CONTROLLER, REASON, role=role, is_pinned=is_pinned)
            except (InvalidRequestError, StaleEpochError):
                if self._clock.now_s() >= deadline_s:
                    raise
                await asyncio.sleep(LOOK_S)

    async def _until(self, is_so: Callable[[], bool], timeout_s: float, complaint: str) -> None:
        """Looks again and again. Raises DeadlineError with the complaint."""
        deadline_s = self._clock.now_s() + timeout_s
        while not is_so():
            if self._clock.now_s() >= deadline_s:
                raise DeadlineError(f"{complaint} within {timeout_s:g} s; see the logs")
            await asyncio.sleep(LOOK_S)

    def _tell(self, roll: Roll, name: str, stage: RoleStage, message: str, num_leaving: int = 0) -> None:
        elapsed_s = self._clock.now_s() - roll.started_s
        roll.latest[name] = RoleProgress(name, stage, message, num_leaving, elapsed_s)
