"""What routers are told of the KV that has moved: copies of what the halves count, now and then."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from core.clock import Clock
from core.ids import WorkerId
from core.transfers import PairStats

REPORT_EVERY_S = 1.0  # as the heartbeat; nobody looks more often


@dataclass(frozen=True, slots=True)
class TransferCounts:
    """What both halves have counted, at one moment.

    Attributes:
        sent: by target, of the prompt half.
        received: by source, of the token half.
    """

    sent: Mapping[WorkerId, PairStats]
    received: Mapping[WorkerId, PairStats]


class TransferLog:
    """Takes copies at most once a second, on the thread that owns the halves.

    Args:
        sent: the prompt half's counts, which go on changing.
        received: the token half's.
        clock: for the time of copies.
    """

    def __init__(
        self, sent: Mapping[WorkerId, PairStats], received: Mapping[WorkerId, PairStats], clock: Clock
    ) -> None:
        self._sent = sent
        self._received = received
        self._clock = clock
        self._taken_s = float("-inf")

    def take(self) -> TransferCounts | None:
        """A copy when it is time for one."""
        now_s = self._clock.now_s()
        if now_s - self._taken_s < REPORT_EVERY_S:
            return None
        self._taken_s = now_s
        return TransferCounts(copy_of(self._sent), copy_of(self._received))


def copy_of(pairs: Mapping[WorkerId, PairStats]) -> dict[WorkerId, PairStats]:
    """The same counts, which change no more."""
    return {peer: replace(stats, failures=dict(stats.failures)) for peer, stats in pairs.items()}
