"""Starts routers and workers, and starts again what died. Kills nobody who lives: that is the supervisor's.

A member is started again only when nothing of it is left, for its new incarnation tells everyone that the old one is
dead.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from core.clock import Clock
from core.errors import BatonError, UnavailableError
from core.ids import WorkerId
from core.members import MemberKind, MemberState, MemberStatus
from core.processes import RankProcess
from deploy.repeating import repeating
from deploy.restarts import CrashCount, RestartPolicy

PATIENCE_S = 1.0  # with members that take their time: machines that do not answer; the others are looked at meanwhile
TICK_S = 0.2  # from a death to its being noticed: far less than a start takes
START_POLL_S = 0.05  # somebody waits for it

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sight:
    """What can be seen of a member after it was told to start.

    Attributes:
        state: `STARTING`, `RUNNING`, or `ENDING` when it died or did not start.
        error: why it does not run; None when it does, or when its start goes well.
        address: `host:port` when it runs.
        processes: of all its ranks when it runs.
        worker: its incarnation when it is a worker that runs.
    """

    state: MemberState
    error: BatonError | None = None
    address: str = ""
    processes: tuple[RankProcess, ...] = ()
    worker: WorkerId | None = None


class Member(Protocol):
    """A router or worker, and how to run it. Called from one thread at a time."""

    @property
    def name(self) -> str:
        """The same after every start."""
        ...

    @property
    def kind(self) -> MemberKind:
        """What it is."""
        ...

    def start(self) -> None:
        """Begins a start; nothing of an earlier one is left. Returns at once."""
        ...

    def look(self) -> Sight:
        """Looks at how the start went, and goes on with it."""
        ...

    def end(self) -> bool:
        """Ends whatever is left of a start; whether all of its processes are known to have ended."""
        ...

    def stop(self) -> None:
        """Ends it in order, whatever its state; bounded in time. No other call follows."""
        ...


class Event(StrEnum):
    """What happens to a member."""

    DUE = "due"
    SERVES = "serves"
    DIED = "died"
    ENDED = "ended"
    HOPELESS = "hopeless"


TRANSITIONS: dict[tuple[MemberState, Event], MemberState] = {
    (MemberState.WAITING, Event.DUE): MemberState.STARTING,
    (MemberState.STARTING, Event.SERVES): MemberState.RUNNING,
    (MemberState.STARTING, Event.DIED): MemberState.ENDING,
    (MemberState.RUNNING, Event.DIED): MemberState.ENDING,
    (MemberState.ENDING, Event.ENDED): MemberState.WAITING,
    (MemberState.ENDING, Event.HOPELESS): MemberState.GIVEN_UP,
}


class Kept:
    """One member through all its starts.

    Args:
        member: starts and ends.
        on_dead: hears that an incarnation of a worker is dead, before the next start; raises nothing.
        clock: for delays and for how long it served.
        policy: of starting it again.

    Attributes:
        member: the same.
        error: why it does not run, or last did not; None when it does.
    """

    def __init__(
        self, member: Member, on_dead: Callable[[WorkerId], None], clock: Clock, policy: RestartPolicy
    ) -> None:
        self.member = member
        self.error: BatonError | None = None
        self._on_dead = on_dead
        self._clock = clock
        self._crashes = CrashCount(policy)
        self._state = MemberState.WAITING
        self._num_starts = 0
        self._due_s = clock.now_s()
        self._since_s: float | None = None
        self._sight = Sight(MemberState.STARTING)

    @property
    def state(self) -> MemberState:
        """Where it stands."""
        return self._state

    def status(self) -> MemberStatus:
        """How it is, to be shown."""
        is_running = self._state is MemberState.RUNNING
        return MemberStatus(
            name=self.member.name,
            kind=self.member.kind,
            state=self._state,
            address=self._sight.address if is_running else "",
            processes=self._sight.processes if is_running else (),
            num_restarts=max(0, self._num_starts - 1),
            reason=self.error.message if self.error else "",
        )

    def running_worker(self) -> tuple[WorkerId, tuple[RankProcess, ...]] | None:
        """Its incarnation and processes when it is a worker that runs."""
        sight = self._sight
        if self._state is not MemberState.RUNNING or sight.worker is None or not sight.processes:
            return None
        return sight.worker, sight.processes

    def advance(self) -> None:
        """Starts it if that is due, and looks how it is."""
        if self._state is MemberState.WAITING and self._clock.now_s() >= self._due_s:
            self._take(Event.DUE)
            self._num_starts += 1
            self.member.start()
        if self._state in (MemberState.STARTING, MemberState.RUNNING):
            self._look()

    def tick(self) -> None:
        """Does what is due, whatever happened to it."""
        self.advance()
        if self._state is MemberState.ENDING and self.member.end():
            self._bury()

    def _look(self) -> None:
        sight = self.member.look()
        self.error = sight.error or self.error
        if sight.state is MemberState.ENDING:
            self._take(Event.DIED)
        elif sight.state is MemberState.RUNNING and self._state is MemberState.STARTING:
            self.error, self._sight, self._since_s = None, sight, self._clock.now_s()
            self._take(Event.SERVES)

    def _bury(self) -> None:
        """Nothing of it is left: says so, and decides about the next start."""
        now_s = self._clock.now_s()
        if self._sight.worker is not None:
            self._on_dead(self._sight.worker)
        delay_s = self._crashes.died(0.0 if self._since_s is None else now_s - self._since_s)
        self._sight, self._since_s = Sight(MemberState.STARTING), None
        if delay_s is None:
            self.error = UnavailableError(
                f"it crashed {self._crashes.num_crashes} times in a row; start the cluster anew when what is wrong "
                f"is mended: {self.error}"
            )
            logger.error("%s is given up: %s", self.member.name, self.error)
            self._take(Event.HOPELESS)
            return
        logger.warning("%s is started again in %g s, for %s", self.member.name, delay_s, self.error)
        self._due_s = now_s + delay_s
        self._take(Event.ENDED)

    def _take(self, event: Event) -> None:
        self._state = TRANSITIONS[self._state, event]


class Keeper:
    """Keeps members running, each on a thread of its own: one whose machine does not answer holds up no other.

    Args:
        members: in the order in which they are started and stopped.
        on_dead: see `Kept`; called from several threads at once.
        clock: see `Kept`.
        policy: of starting them again.
    """

    def __init__(
        self,
        members: Sequence[Member],
        on_dead: Callable[[WorkerId], None],
        clock: Clock,
        policy: RestartPolicy | None = None,
    ) -> None:
        self._kept = [Kept(member, on_dead, clock, policy or RestartPolicy()) for member in members]
        self._statuses: tuple[MemberStatus, ...] = tuple(kept.status() for kept in self._kept)
        self._threads = ThreadPoolExecutor(max(1, len(members)), thread_name_prefix="member")
        self._ticks: dict[str, Future[None]] = {}

    def statuses(self) -> tuple[MemberStatus, ...]:
        """How all members are; from any thread."""
        return self._statuses

    def running_workers(self) -> dict[WorkerId, tuple[RankProcess, ...]]:
        """Incarnations of workers that run, with the processes of their ranks; from any thread."""
        return dict(running for kept in self._kept if (running := kept.running_worker()) is not None)

    def start(self) -> None:
        """Starts all and waits until all serve. Once, before `running`.

        Raises:
            BatonError: what kept the first that failed from starting.
        """
        while any(kept.state is not MemberState.RUNNING for kept in self._kept):
            for kept in self._kept:
                kept.advance()
                if kept.state is MemberState.ENDING:
                    assert kept.error is not None, f"{kept.member.name} does not say why it did not start"
                    raise kept.error
            time.sleep(START_POLL_S)
        self._note()

    def running(self) -> contextlib.AbstractContextManager[None]:
        """While the context lasts, threads start again what died. Entered once."""
        return repeating("keeper", TICK_S, self.tick, threading.Event())

    def tick(self) -> None:
        """Looks at all members, and does what is due; those that are still at the last tick are left to it."""
        for kept in self._kept:
            if not self._is_busy(kept):
                self._ticks[kept.member.name] = self._threads.submit(self._tick, kept)
        wait(self._ticks.values(), PATIENCE_S)
        self._note()

    def stop(self) -> None:
        """Ends all members, the first first, when none is looked at any more; bounded in time."""
        self._threads.shutdown()
        for kept in self._kept:
            kept.member.stop()

    @staticmethod
    def _tick(kept: Kept) -> None:
        try:
            kept.tick()
        except Exception:
            logger.exception("a defect in keeping %s; the others are looked after", kept.member.name)

    def _is_busy(self, kept: Kept) -> bool:
        tick = self._ticks.get(kept.member.name)
        return tick is not None and not tick.done()

    def _note(self) -> None:
        """Of a member that is busy what was noted last stays, for it changes."""
        self._statuses = tuple(
            noted if self._is_busy(kept) else kept.status()
            for kept, noted in zip(self._kept, self._statuses, strict=True)
        )
