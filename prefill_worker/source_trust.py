"""Which sources of prefixes are left alone for a while: waiting for them has cost time and brought nothing."""

from dataclasses import dataclass

from core.clock import Clock
from core.ids import WorkerId

COSTLY_S = 0.5  # a prompt that has waited for less is hardly late
FIRST_PAUSE_S = 10.0  # as long as a fetch is waited for at most
MAX_PAUSE_S = 640.0  # a link that has become good is found out within ten minutes, and a bad one costs 2 % of them


@dataclass(slots=True)
class _Pause:
    length_s: float
    until_s: float


class SourceTrust:
    """Pauses after failures, by source: each twice as long as the one before, until a fetch succeeds.

    The router predicts from the bandwidth of fetches that came; a link too slow for any is noticed only here.

    Args:
        clock: for the pauses.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pauses: dict[WorkerId, _Pause] = {}

    def is_paused(self, source: WorkerId) -> bool:
        """Whether nothing should be fetched from a source now."""
        pause = self._pauses.get(source)
        return pause is not None and self._clock.now_s() < pause.until_s

    def failed(self, source: WorkerId, waited_s: float) -> None:
        """A fetch has brought nothing in time. What was asked for before a pause began makes it no longer."""
        if waited_s < COSTLY_S or self.is_paused(source):
            return
        before = self._pauses.get(source)
        length_s = FIRST_PAUSE_S if before is None else min(2 * before.length_s, MAX_PAUSE_S)
        self._pauses[source] = _Pause(length_s, self._clock.now_s() + length_s)

    def succeeded(self, source: WorkerId) -> None:
        """A fetch has come in time."""
        self._pauses.pop(source, None)

    def worker_gone(self, worker: WorkerId) -> None:
        """This incarnation of a worker and all before it are dead."""
        self._pauses = {source: pause for source, pause in self._pauses.items() if not worker.outlasts(source)}
