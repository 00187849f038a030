"""Follows one worker's block names from its reports into the prefix index, and notices when it has missed some."""

from core.kv_events import KvEvents, KvSnapshot
from router.fleet.prefix_index import PrefixIndex
from router.wire import StepReport


class KvFeed:
    """What one incarnation of a worker says of its names.

        events heard      ... 7 8 9 | 12 13 ...           10 and 11 are missing: from here on nothing is believed
        snapshot          ......................... 15    but this, and the events from 15 on

    Args:
        index: where the names go.
    """

    def __init__(self, index: PrefixIndex) -> None:
        self._index = index
        self._holder = index.open()
        self._next: int | None = None  # number of the next event; None while waiting for the end of a snapshot
        self._is_in_snapshot = False

    @property
    def holder(self) -> int:
        """The worker in the index; another one after each snapshot."""
        return self._holder

    def hear(self, report: StepReport) -> bool:
        """Takes in what a report says of names; returns whether a snapshot must be asked for."""
        if report.kv_snapshot is not None:
            self._hear_snapshot(report.kv_snapshot)
        return report.kv_events is not None and self._misses(report.kv_events)

    def close(self) -> None:
        """The worker is gone, and so are its names."""
        self._index.forget(self._holder)

    def _hear_snapshot(self, part: KvSnapshot) -> None:
        if not self._is_in_snapshot:
            self._index.forget(self._holder)
            self._holder = self._index.open()
        self._index.store(self._holder, part.names)
        self._is_in_snapshot = not part.is_last
        if part.is_last:
            self._next = part.next

    def _misses(self, events: KvEvents) -> bool:
        if self._next is None:
            return False  # the snapshot that is on its way has all of it, or what follows will show a gap
        if events.first != self._next:
            self._next = None
            return True
        self._index.store(self._holder, events.stored)
        self._index.drop(self._holder, events.dropped)
        self._next = events.next
        return False
