"""How many moves peers may have with this worker's pool now: while there are any, the transports must be polled."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class InboundCount:
    """Adds up what the worker's loop and the event loop know of. Callable from any thread.

    Over TCP a transfer goes on only while the process at its other end polls, so a source that is read from has to
    as much as a target that is written to.

    Args:
        tell: hears of every new sum, one at a time and in order.
    """

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._num_writes = 0
        self._num_reads = 0

    def set_writes(self, num_writes: int) -> None:
        """Says how many handoffs and prefixes peers may write into the pool now."""
        with self._lock:
            self._num_writes = num_writes
            self._tell(self._num_writes + self._num_reads)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """While a peer may read from the pool, once for each read."""
        self._add_reads(1)
        try:
            yield
        finally:
            self._add_reads(-1)

    def _add_reads(self, num_reads: int) -> None:
        with self._lock:
            self._num_reads += num_reads
            self._tell(self._num_writes + self._num_reads)
