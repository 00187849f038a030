"""Faults at random, one after the other, in a cluster that works. The seed chooses who is hit by what."""

import contextlib
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import psutil

from core.processes import ProcessId
from core.request import Role
from deploy.processes import kill_processes

ROLES = (Role.PREFILL, Role.DECODE, Role.MIXED)
PROGRESS_TIMEOUT_S = 60.0  # faults go on even if no request ends any more

Processes = Mapping[str, Sequence[ProcessId]]
"""By the name of the worker or router."""


class Fault(StrEnum):
    """What can happen to a worker or a router."""

    KILL = "kill"
    """It is gone, and somebody starts it again."""
    STOP = "stop"
    """It does nothing for a moment."""
    HANG = "hang"
    """It does nothing any more, until somebody kills it for that; of workers only."""
    FLIP = "flip"
    """It is told to do something else; of workers only."""


WORKER_FAULTS = (Fault.KILL, Fault.KILL, Fault.STOP, Fault.STOP, Fault.HANG, Fault.FLIP, Fault.FLIP)
ROUTER_FAULTS = (Fault.KILL, Fault.KILL, Fault.STOP)


class Victims(Protocol):
    """A cluster that starts again what dies, and has workers that hang killed."""

    def workers(self) -> Processes:
        """Those that run now."""
        ...

    def routers(self) -> Processes:
        """Those that may die now: none while nobody else would take their requests over."""
        ...

    def is_watched(self, worker: str) -> bool:
        """Whether it would be noticed that a worker hangs: somebody has met these very processes of it."""
        ...

    def flip(self, worker: str, role: Role) -> bool:
        """Orders another role. False when that is refused, as it is to the last worker of a half."""
        ...


@dataclass(frozen=True, slots=True)
class Force:
    """How hard a wind blows.

    Attributes:
        calm_s: shortest and longest time from the end of one fault to the next.
        stopped_s: likewise for which a process is stopped.
    """

    calm_s: tuple[float, float]
    stopped_s: tuple[float, float]


class Wind:
    """Injects faults on a thread of its own while it blows.

    None comes before a request has ended since the last: faults outrun no machine, and what waits for ever after the
    last of them does so among healthy workers. While a worker hangs no router is hit: routers that are started anew
    have not met that worker, and the time after which they miss it begins with each such start.

    Args:
        victims: who is hit.
        force: how often, and for how long.
        seed: of everything that is chosen.
        on_fault: hears of each, in words.

    Attributes:
        faults: that have come, by kind.
    """

    def __init__(self, victims: Victims, force: Force, seed: int, on_fault: Callable[[str], None]) -> None:
        self._victims = victims
        self._force = force
        self._choice = random.Random(seed)  # noqa: S311 - not for secrets
        self._on_fault = on_fault
        self._is_over = threading.Event()
        self._has_progressed = threading.Event()
        self._hanging: list[ProcessId] = []
        self.faults: Counter[str] = Counter()

    @contextlib.contextmanager
    def blowing(self) -> Iterator[None]:
        """Faults come while the context lasts. Entered once."""
        thread = threading.Thread(target=self._blow, name="wind", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            self._has_progressed.set()
            thread.join()

    def progressed(self) -> None:
        """A request has ended. From any thread."""
        self._has_progressed.set()

    def gust(self) -> None:
        """One fault, to its end, if anybody is there to be hit."""
        is_hanging = any(name.find() is not None for name in self._hanging)
        workers, routers = self._victims.workers(), {} if is_hanging else self._victims.routers()
        everybody = {**workers, **routers}
        if not everybody:
            return
        name = self._choice.choice(sorted(everybody))
        fault = self._choice.choice(ROUTER_FAULTS if name in routers else WORKER_FAULTS)
        if fault is Fault.FLIP:
            self._flip(name, self._choice.choice(ROLES))
            return
        if fault is Fault.HANG and not self._victims.is_watched(name):
            fault = Fault.KILL
        self._count(fault, name)
        if fault is Fault.KILL:
            kill_processes(everybody[name])
        else:
            self._stop(everybody[name], self._choice.uniform(*self._force.stopped_s), for_ever=fault is Fault.HANG)

    def _blow(self) -> None:
        while not self._is_over.wait(self._choice.uniform(*self._force.calm_s)):
            self._has_progressed.wait(PROGRESS_TIMEOUT_S)
            if self._is_over.is_set():
                return
            self._has_progressed.clear()
            self.gust()

    def _flip(self, worker: str, role: Role) -> None:
        if self._victims.flip(worker, role):
            self._count(Fault.FLIP, worker)

    def _stop(self, processes: Sequence[ProcessId], stopped_s: float, *, for_ever: bool) -> None:
        found = [process for name in processes if (process := name.find()) is not None]
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        if for_ever:
            self._hanging += processes
            return
        self._is_over.wait(stopped_s)
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def _count(self, fault: Fault, name: str) -> None:
        self._on_fault(f"{fault} {name}")
        self.faults[f"{fault} {name.partition('-')[0]}"] += 1
