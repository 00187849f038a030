"""The virtual clock: what happens when, and what time it is. Nothing here waits."""

import heapq
import math
from collections.abc import Callable
from itertools import count


class Agenda:
    """Events in order of time; those of the same time in the order in which they were put here.

    Attributes:
        now_s: time of the event that happens now.
        end_s: nothing later happens any more; infinite at first.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self.end_s = math.inf
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def at(self, time_s: float, event: Callable[[], None]) -> None:
        """Has something happen at a time that has not passed."""
        assert time_s >= self.now_s, f"{time_s} s has passed; it is {self.now_s} s"
        heapq.heappush(self._events, (time_s, next(self._numbers), event))

    def after(self, delay_s: float, event: Callable[[], None]) -> None:
        """Has something happen in a while."""
        self.at(self.now_s + delay_s, event)

    def run(self) -> None:
        """Lets everything happen, up to the end and that included; an event may bring the end nearer."""
        while self._events and self._events[0][0] <= self.end_s:
            self.now_s, _, event = heapq.heappop(self._events)
            event()
