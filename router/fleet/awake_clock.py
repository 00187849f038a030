"""Time in which the router itself ran. Not for deadlines: a client waits while the router is held up, too."""

from core.clock import Clock

# Most that passes between two readings. Above the second between them while all is well, and well below any silence
# that a worker is killed for.
MAX_STRIDE_S = 2.0


class AwakeClock:
    """A clock by which a router that is held up, stopped or starved, misses almost nothing.

    What workers said meanwhile is still to be read, so the time proves nothing about them. Whoever reads this clock
    must see to it that somebody does so about once a second: time nobody looked is not counted.

    Args:
        clock: the real one.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._read_s = clock.now_s()
        self._awake_s = 0.0

    def now_s(self) -> float:
        """Seconds since the start; never goes back."""
        before_s, self._read_s = self._read_s, self._clock.now_s()
        self._awake_s += min(self._read_s - before_s, MAX_STRIDE_S)
        return self._awake_s
