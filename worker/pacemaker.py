"""Stands in for a worker's loop while one piece of its work takes long. Not when the loop hangs for good."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from core.clock import Clock

MAX_WORK_S = 300.0  # what takes longer is stuck: the worker falls silent, loses its leases, and is killed in the end


class Pacemaker:
    """A thread that beats for the loop, while it runs and the loop is at work on one thing.

    Args:
        beat: tells routers and peers that the worker lives; called from the thread, never when `working` has been
            left: what the loop leaves alone while it is at work, this may use.
        interval_s: between two beats, and from the beginning of a piece of work to the first.
        clock: for the length of the work.
    """

    def __init__(self, beat: Callable[[], None], interval_s: float, clock: Clock) -> None:
        self._beat = beat
        self._interval_s = interval_s
        self._clock = clock
        self._lock = threading.Lock()
        self._began_s: float | None = None
        self._ended = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """While the context lasts, the thread runs; once."""
        thread = threading.Thread(target=self._run, name="pacemaker", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    @contextmanager
    def working(self) -> Iterator[None]:
        """A piece of work that may take long; costs next to nothing when it does not."""
        self._began_s = self._clock.now_s()
        try:
            yield
        finally:
            with self._lock:
                self._began_s = None

    def tick(self) -> None:
        """Beats if the loop has been at one thing for a while, but not for too long."""
        with self._lock:
            began_s = self._began_s
            if began_s is not None and self._interval_s <= self._clock.now_s() - began_s < MAX_WORK_S:
                self._beat()

    def _run(self) -> None:
        while not self._ended.wait(self._interval_s):
            self.tick()
