"""How much memory the processes of a cluster take over a long run, and by how much that grows."""

import contextlib
import statistics
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from deploy.bench.chaos.wind import Processes

EVERY_S = 10.0
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """One look.

    Attributes:
        at_s: seconds since the first.
        rss_mib: resident memory by the name of the worker or router, all its processes together.
    """

    at_s: float
    rss_mib: Mapping[str, float]


@dataclass(slots=True)
class MemoryWatch:
    """Looks every ten seconds, on a thread of its own.

    Attributes:
        processes: whose memory to look at.
        rows: so far.
    """

    processes: Processes
    rows: list[MemoryRow] = field(default_factory=list)
    _is_over: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Rows come while the context lasts, one at its begin and one at its end. Entered once."""
        thread = threading.Thread(target=self._watch, name="memory", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            thread.join()

    def _watch(self) -> None:
        began_s = time.monotonic()
        is_over = False
        while not is_over:
            self._look(began_s)
            is_over = self._is_over.wait(EVERY_S)
        self._look(began_s)

    def _look(self, began_s: float) -> None:
        self.rows.append(MemoryRow(time.monotonic() - began_s, resident_mib(self.processes)))


def resident_mib(processes: Processes) -> dict[str, float]:
    """Of each worker and router; 0 for processes that have ended."""
    return {
        name: sum(process.memory_info().rss for each in own if (process := each.find()) is not None) / MIB
        for name, own in processes.items()
    }


def growth(rows: Sequence[MemoryRow]) -> dict[str, float]:
    """By how much each grew, as a share of what it had: the last quarter of the looks against the second.

    What is allocated once, when the load begins, comes in the first quarter.

    Args:
        rows: at least two, of the same processes.
    """
    quarter = max(1, len(rows) // 4)
    before, after = rows[quarter : 2 * quarter], rows[-quarter:]
    return {name: _median(after, name) / max(_median(before, name), 1.0) - 1.0 for name in rows[0].rss_mib}


def _median(rows: Sequence[MemoryRow], name: str) -> float:
    return statistics.median(row.rss_mib[name] for row in rows)
