"""Makes sure that a worker nobody hears is dead, so that the KV blocks it could still write are free again.

It kills processes and says so. Starting them again is the keeper's (`deploy.keeper`).
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from core.errors import BatonError
from core.ids import WorkerId
from core.processes import RankProcess
from deploy.repeating import repeating

LOOK_S = 1.0  # between two looks, both of which must find a worker silent

logger = logging.getLogger(__name__)

Kill = Callable[[Sequence[RankProcess]], bool]
"""Kills processes, stopped ones too, and waits; whether all are known to have ended, by this or before."""


class Fence(Protocol):
    """Whoever hears the workers, and can tell them that one of them is dead."""

    def silent_workers(self, for_s: float) -> dict[WorkerId, tuple[RankProcess, ...]]:
        """Workers that have not said for so long that they work, and the processes of their ranks.

        Raises:
            BatonError: it does not answer.
        """
        ...

    def worker_gone(self, worker: WorkerId) -> None:
        """All processes of an incarnation have ended. Idempotent.

        Raises:
            BatonError: it does not answer, or knows better.
        """
        ...


class Supervisor:
    """Kills workers that are silent: stopped, stuck, or dead already, which costs nothing to kill again.

    Silence is looked at twice, `LOOK_S` apart, and a look that the router does not answer breaks the row. Before each
    kill it is asked once more, for the kill before may have taken its time. Only the incarnation that was silent is
    killed, by the processes that it named: one that has been started since is not touched.

    Args:
        fence: asked at every look, and told.
        kill: ends processes.
        hang_timeout_s: silence after which a worker is killed.
    """

    def __init__(self, fence: Fence, kill: Kill, hang_timeout_s: float) -> None:
        self._fence = fence
        self._kill = kill
        self._hang_timeout_s = hang_timeout_s
        self._suspects: frozenset[WorkerId] = frozenset()
        self._stopping = threading.Event()

    def running(self) -> contextlib.AbstractContextManager[None]:
        """While the context lasts, a thread looks again and again. Entered once."""
        return repeating("supervisor", LOOK_S, self.look, self._stopping)

    def look(self) -> None:
        """Kills whoever is silent now and was so the last time.

        Raises:
            BatonError: the router does not answer.
        """
        suspects, self._suspects = self._suspects, frozenset()
        silent = self._fence.silent_workers(self._hang_timeout_s)
        for worker in silent:
            if worker in suspects:
                self._end_if_silent(worker)
        self._suspects = frozenset(silent)

    def _end_if_silent(self, worker: WorkerId) -> None:
        if self._stopping.is_set():
            return
        processes = self._fence.silent_workers(self._hang_timeout_s).get(worker)
        if processes is not None:
            self._end(worker, processes)

    def _end(self, worker: WorkerId, processes: Sequence[RankProcess]) -> None:
        pids = ", ".join(str(rank.process.pid) for rank in processes)
        logger.warning("worker %s was silent for %g s; killing process %s", worker, self._hang_timeout_s, pids)
        if not self._kill(processes):
            logger.error("worker %s could not be killed; its peers keep the blocks that it may write", worker)
            return
        tell_gone(self._fence, worker)


def tell_gone(fence: Fence, worker: WorkerId) -> None:
    """Says that an incarnation is dead; that nobody hears it is logged only, for its successor says so, too."""
    try:
        fence.worker_gone(worker)
    except BatonError as error:
        logger.warning("worker %s is dead, but no router was told: %s", worker, error)
