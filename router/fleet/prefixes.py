"""Which attached workers have the beginning of a prompt: one index over all of them, kept from their reports."""

from collections.abc import Iterable

from core.blocks import BlockName
from core.ids import WorkerId
from router.fleet.kv_feed import KvFeed
from router.fleet.prefix_index import PrefixIndex
from router.wire import StepReport

SWEEP_PER_REPORT = 1024  # names of lost workers removed at a time: half a millisecond, and reports come often


class FleetPrefixes:
    """Names of all workers a router hears of. Used from the event loop only."""

    def __init__(self) -> None:
        self._index = PrefixIndex()
        self._feeds: dict[WorkerId, KvFeed] = {}
        self._worker_of: dict[int, WorkerId] = {}

    @property
    def num_names(self) -> int:
        """Names of blocks that some worker has; those of lost workers are removed little by little."""
        return len(self._index)

    def hear(self, worker: WorkerId, report: StepReport) -> bool:
        """Takes in what a worker's report says of names; returns whether it must be asked for a snapshot."""
        self._index.sweep(SWEEP_PER_REPORT)
        feed = self._feeds.get(worker)
        if feed is None:
            feed = self._feeds[worker] = KvFeed(self._index)
        self._worker_of.pop(feed.holder, None)
        misses_some = feed.hear(report)
        self._worker_of[feed.holder] = worker
        return misses_some

    def forget(self, worker: WorkerId) -> None:
        """A worker is gone, and what it had with it; harmless when it never said anything."""
        if (feed := self._feeds.pop(worker, None)) is not None:
            del self._worker_of[feed.holder]
            feed.close()

    def holder(self, worker: WorkerId) -> int:
        """The worker in sets of holders; 0 while it has said nothing. Another one after each of its snapshots."""
        feed = self._feeds.get(worker)
        return 0 if feed is None else feed.holder

    def worker_of(self, holder: int) -> WorkerId:
        """Inverse of `holder`, for one that is in a set that `reach` has just returned."""
        return self._worker_of[holder]

    def reach(self, names: Iterable[BlockName]) -> list[tuple[int, int]]:
        """Which holders have how many leading blocks of a chain, see `PrefixIndex.reach`."""
        return self._index.reach(names)
