"""Time as a dependency, so that deadlines can be tested without waiting. Not for wall-clock dates."""

import time
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """A monotonic clock."""

    def now_s(self) -> float:
        """Seconds since an arbitrary fixed point; never goes back."""
        ...


class SystemClock:
    """The machine's monotonic clock."""

    def now_s(self) -> float:
        """Seconds of `time.monotonic`."""
        return time.monotonic()


@dataclass(slots=True)
class ManualClock:
    """A clock that moves only when told to."""

    time_s: float = 0.0

    def now_s(self) -> float:
        """The time last set."""
        return self.time_s

    def advance(self, seconds: float) -> None:
        """Moves the clock forward by `seconds`, which must not be negative."""
        assert seconds >= 0, f"a monotonic clock cannot go back by {seconds} s"
        self.time_s += seconds
