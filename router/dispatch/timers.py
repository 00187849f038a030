"""The timers of one request: at most one for each purpose, none after its end. Not the clock of the fleet."""

import asyncio
from collections.abc import Callable
from enum import Enum, auto


class Purpose(Enum):
    """What a request's timer is for."""

    DEADLINE = auto()
    """The request has not ended in time."""
    MISSING_ROLE = auto()
    """No worker of a needed role has come in time."""
    RETRY = auto()
    """The pause before the next placement is over."""


class RequestTimers:
    """Timers on the running event loop."""

    def __init__(self) -> None:
        self._handles: dict[Purpose, asyncio.TimerHandle] = {}

    def running(self) -> frozenset[Purpose]:
        """The purposes whose timer runs."""
        return frozenset(self._handles)

    def start(self, purpose: Purpose, delay_s: float, call: Callable[[], None]) -> None:
        """Has a call made once after `delay_s`. A timer of that purpose that runs already goes on as it is."""
        if purpose not in self._handles:
            loop = asyncio.get_running_loop()
            self._handles[purpose] = loop.call_later(delay_s, self._ring, purpose, call)

    def stop(self, *purposes: Purpose) -> None:
        """Stops some timers; those that do not run are ignored."""
        for purpose in purposes:
            if handle := self._handles.pop(purpose, None):
                handle.cancel()

    def _ring(self, purpose: Purpose, call: Callable[[], None]) -> None:
        del self._handles[purpose]
        call()
