"""An average over as much of the past as is like the present. No clocks: time is what was counted.

Whenever the events of the last while differ from those before by more than chance explains, what was before is
forgotten. So the average is steady under noise, and follows a burst within seconds. The idea is that of ADWIN (Bifet
and Gavalda, 2007), with tests for what is counted here: events that come by chance, and their sizes.
"""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

LEAST_SPREAD = 0.25
"""Sizes are taken to vary by at least this part of their mean: a few that are alike by chance prove nothing."""
LEAST_EVENTS = 4
"""So many events on the longer side say how much sizes vary."""


@dataclass(frozen=True, slots=True)
class Events:
    """What happened in a time.

    Attributes:
        duration_s: of the time.
        count: events.
        amount: sum of their sizes.
        squares: sum of the squares of these.
    """

    duration_s: float = 0.0
    count: float = 0.0
    amount: float = 0.0
    squares: float = 0.0

    def __add__(self, other: "Events") -> "Events":
        return Events(
            self.duration_s + other.duration_s,
            self.count + other.count,
            self.amount + other.amount,
            self.squares + other.squares,
        )

    def __sub__(self, other: "Events") -> "Events":
        return Events(
            self.duration_s - other.duration_s,
            self.count - other.count,
            self.amount - other.amount,
            self.squares - other.squares,
        )

    @property
    def mean(self) -> float:
        """Of the sizes; 0 without events."""
        return self.amount / self.count if self.count else 0.0

    @property
    def variance(self) -> float:
        """Of the sizes, at least that of `LEAST_SPREAD`."""
        spread = self.squares / self.count - self.mean**2 if self.count else 0.0
        return max(spread, (LEAST_SPREAD * self.mean) ** 2)


class AdaptiveWindow:
    """Events of one kind, of the last while.

    Args:
        longest_s: how far back it reaches at most.
        significance: by how many standard deviations the last while must differ from what was before.
    """

    def __init__(self, longest_s: float, significance: float) -> None:
        self._longest_s = longest_s
        self._significance = significance
        self._parts: deque[Events] = deque()
        self.total = Events()

    def add(self, events: Events) -> None:
        """Counts what happened since the last call, and forgets what the present is not like any more."""
        self._parts.append(events)
        self.total += events
        while len(self._parts) > 1 and self.total.duration_s - self._parts[0].duration_s >= self._longest_s:
            self.total -= self._parts.popleft()
        self._keep(self._num_alike())

    def _num_alike(self) -> int:
        """How many of the last parts to keep: all, or those since the clearest change."""
        clearest, num_kept = self._significance, len(self._parts)
        for number, recent in self._recent():
            older = self.total - recent
            deviation = max(count_deviation(recent, older), size_deviation(recent, older))
            if deviation > clearest:
                clearest, num_kept = deviation, number
        return num_kept

    def _recent(self) -> Iterator[tuple[int, Events]]:
        recent = Events()
        for number, part in enumerate(reversed(self._parts), start=1):
            recent += part
            if number < len(self._parts):
                yield number, recent

    def _keep(self, number: int) -> None:
        if number == len(self._parts):
            return
        while len(self._parts) > number:
            self._parts.popleft()
        self.total = sum(self._parts, Events())


def count_deviation(recent: Events, older: Events) -> float:
    """By how many standard deviations the rates of two times differ, were events to come by chance (Poisson).

    One event more in the variance keeps a single one from being a surprise.
    """
    duration_s = recent.duration_s + older.duration_s
    if not (recent.duration_s > 0 and older.duration_s > 0):
        return 0.0
    expected = (recent.count + older.count) * recent.duration_s / duration_s
    variance = expected * older.duration_s / duration_s
    return abs(recent.count - expected) / math.sqrt(variance + 1)


def size_deviation(recent: Events, older: Events) -> float:
    """By how many standard deviations the mean sizes of two times differ; the spread is that of the richer one."""
    known = max(recent, older, key=lambda events: events.count)
    if known.count < LEAST_EVENTS or not (recent.count and older.count):
        return 0.0
    variance = known.variance * (1 / recent.count + 1 / older.count)
    return abs(recent.mean - older.mean) / math.sqrt(variance) if variance > 0 else 0.0
