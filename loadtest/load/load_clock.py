"""The time of a load: seconds since it began. A test puts another clock in its place."""

import asyncio
import time
from typing import Protocol

from core.clock import Clock


class LoadClock(Clock, Protocol):
    """A clock that can be slept by."""

    async def sleep_until(self, at_s: float) -> None:
        """Returns at a time, or as soon as others had their turn if that is past."""
        ...


class RunningClock:
    """The machine's monotonic clock, from the moment at which this is made."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()

    def now_s(self) -> float:
        """Seconds since then."""
        return time.monotonic() - self._began_s

    async def sleep_until(self, at_s: float) -> None:
        """See `LoadClock`."""
        await asyncio.sleep(max(0.0, at_s - self.now_s()))
