"""Workers that run, as the keeper says, and that no router has met for long. Asks and kills nobody."""

from collections.abc import Callable, Collection, Mapping

from core.clock import Clock
from core.ids import WorkerId
from core.processes import RankProcess

# A worker calls one router after the other, two seconds at most for each, again and again. It is no stranger before
# it has been round.
MEET_S = 10.0

RunningWorkers = Callable[[], Mapping[WorkerId, tuple[RankProcess, ...]]]
"""Incarnations that run now, with the processes of their ranks."""


class Strangers:
    """Workers whose silence nobody counts: one that was stopped before a router started is never met by that router.

    A worker is a stranger while no router that answers has met it. That counts from when it began to run or was last
    met, and only while each of the routers that answer has done so at every look: one that has just come up, or was
    held up, hears of all workers first.

    Args:
        running: asked at every look.
        clock: in which time without looks hardly passes, see `AwakeClock`: what was said meanwhile proves nothing.
    """

    def __init__(self, running: RunningWorkers, clock: Clock) -> None:
        self._running = running
        self._clock = clock
        self._unmet_since_s: dict[WorkerId, float] = {}
        self._answering_since_s: dict[object, float] = {}

    def look(self, answering: Collection[object], met: Collection[WorkerId], for_s: float) -> set[WorkerId]:
        """Those that are strangers for so long, and no less than `MEET_S`; once per round of questions to routers.

        Args:
            answering: routers that have answered, hashable; another start of one is another router.
            met: whom any of them has met.
            for_s: seconds.
        """
        now_s = self._clock.now_s()
        self._answering_since_s = {router: self._answering_since_s.get(router, now_s) for router in answering}
        self._unmet_since_s = {
            worker: now_s if worker in met else self._unmet_since_s.get(worker, now_s) for worker in self._running()
        }
        if not answering:
            return set()
        latest_s = now_s - max(for_s, MEET_S)
        if any(since_s > latest_s for since_s in self._answering_since_s.values()):
            return set()
        return {worker for worker, since_s in self._unmet_since_s.items() if since_s <= latest_s}

    def processes(self) -> Mapping[WorkerId, tuple[RankProcess, ...]]:
        """Of all workers that run."""
        return self._running()
