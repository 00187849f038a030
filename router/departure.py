"""A router on its way out: no new connections, requests under way end in time, the rest is told. On its event loop.

SERVING ──ordered──> DRAINING ──no request left, or overdue──> STOPPED
"""

import asyncio
import math
from collections.abc import Callable
from enum import Enum, auto

from core.errors import InvalidRequestError

LOOK_S = 0.05  # between two looks at what is left


def check_drain_timeout(drain_timeout_s: float) -> None:
    """Makes sure that a time that somebody gave for draining is one.

    Raises:
        InvalidRequestError: it is negative, endless, or no number.
    """
    if not 0 <= drain_timeout_s < math.inf:
        raise InvalidRequestError(f"the drain timeout is {drain_timeout_s} s; it must be 0 (no time) or more")


class RouterPhase(Enum):
    """Where a router is."""

    SERVING = auto()
    DRAINING = auto()
    STOPPED = auto()


class RouterEvent(Enum):
    """What moves it."""

    ORDERED = auto()
    DRAINED = auto()


TRANSITIONS: dict[tuple[RouterPhase, RouterEvent], RouterPhase] = {
    (RouterPhase.SERVING, RouterEvent.ORDERED): RouterPhase.DRAINING,
    (RouterPhase.DRAINING, RouterEvent.DRAINED): RouterPhase.STOPPED,
}


class RouterDeparture:
    """When a router goes, and how long its requests have.

    Args:
        drain_timeout_s: seconds for requests under way to end, where an order does not say it.

    Attributes:
        timeout_s: the shortest time that was given.
        phase: written by `_move` only.
    """

    def __init__(self, drain_timeout_s: float) -> None:
        self.timeout_s = drain_timeout_s
        self.phase = RouterPhase.SERVING
        self._ordered_s = 0.0
        self._ordered = asyncio.Event()

    @property
    def is_ordered(self) -> bool:
        """Whether the router is leaving, or has left."""
        return self.phase is not RouterPhase.SERVING

    @property
    def left_s(self) -> float:
        """Seconds that requests have still, once it was ordered."""
        return max(0.0, self._ordered_s + self.timeout_s - asyncio.get_running_loop().time())

    def order(self, drain_timeout_s: float | None = None) -> None:
        """The router is to leave. A further order can only shorten the time: 0 ends it now.

        Raises:
            InvalidRequestError: the time is none; nothing has changed.
        """
        if drain_timeout_s is not None:
            check_drain_timeout(drain_timeout_s)
            self.timeout_s = min(self.timeout_s, drain_timeout_s) if self.is_ordered else drain_timeout_s
        if not self.is_ordered:
            self._ordered_s = asyncio.get_running_loop().time()
            self._move(RouterEvent.ORDERED)
            self._ordered.set()

    async def wait_ordered(self) -> None:
        """Until the router is to leave."""
        await self._ordered.wait()

    async def drain(self, count: Callable[[], int]) -> None:
        """Waits until no request is left, or the time is over.

        Args:
            count: requests under way.
        """
        while count() and self.left_s:  # noqa: ASYNC110 - those who are counted tell nobody
            await asyncio.sleep(min(LOOK_S, self.left_s))
        self._move(RouterEvent.DRAINED)

    def _move(self, event: RouterEvent) -> None:
        self.phase = TRANSITIONS[self.phase, event]
