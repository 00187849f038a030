"""What routers are told of the KV that this worker has sent: copies of the prompt half's counts, now and then."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from core.clock import Clock
from core.ids import WorkerId
from core.transfers import PairStats

REPORT_EVERY_S = 1.0  # as the heartbeat; nobody looks more often

Counts = Mapping[WorkerId, PairStats]
"""What has gone to each peer."""


class TransferLog:
    """Takes copies at most once a second. Called where the half is.

    Args:
        pairs: the half's counts, which go on changing.
        clock: for the time of copies.
    """

    def __init__(self, pairs: Callable[[], Counts], clock: Clock) -> None:
        self._pairs = pairs
        self._clock = clock
        self._taken_s = float("-inf")

    def take(self) -> Counts | None:
        """A copy when it is time for one."""
        now_s = self._clock.now_s()
        if now_s - self._taken_s < REPORT_EVERY_S:
            return None
        self._taken_s = now_s
        return {peer: replace(stats, failures=dict(stats.failures)) for peer, stats in self._pairs().items()}
