"""Who has the beginning of a prompt, by the router's own index, which simulated workers tell what they cache.

A router hears of blocks in reports of steps; here it hears of them at once.
"""

import struct
from collections.abc import Sequence

from core.blocks import BlockName
from loadtest.simulator.job import Job
from loadtest.simulator.worker import SimWorker
from router.dispatch.worker_rows import Reach
from router.fleet.prefix_index import PrefixIndex
from router.fleet.prefixes import SWEEP_PER_REPORT

SCATTER = 0x9E3779B97F4A7C15  # odd, so that ids below 2^64 keep names of their own; spreads their bits over all of it
MASK = (1 << 64) - 1


class Prefixes:
    """The index over one fleet.

    Args:
        block_tokens: tokens per block; a router names full blocks only.
    """

    def __init__(self, block_tokens: int) -> None:
        self._block_tokens = block_tokens
        self._index = PrefixIndex()
        self._worker_of: dict[int, SimWorker] = {}
        self._holder_of: dict[SimWorker, int] = {}

    def attach(self, worker: SimWorker) -> None:
        """A worker comes, with nothing in its cache."""
        index, holder = self._index, self._index.open()
        self._worker_of[holder], self._holder_of[worker] = worker, holder

        def hear(stored: Sequence[int], dropped: Sequence[int]) -> None:
            index.store(holder, names_of(stored))
            index.drop(holder, names_of(dropped))

        worker.cache.news = hear

    def forget(self, worker: SimWorker) -> None:
        """A worker is gone, and its cache with it."""
        holder = self._holder_of.pop(worker)
        del self._worker_of[holder]
        self._index.forget(holder)

    def holder(self, worker: SimWorker) -> int:
        """What stands for a worker in the index."""
        return self._holder_of[worker]

    def reach(self, job: Job) -> Reach:
        """Who has leading tokens of a request's prompt: holders in sets, and how many tokens those in each have."""
        self._index.sweep(SWEEP_PER_REPORT)
        full_blocks = job.arrival.block_ids[: job.arrival.prompt_tokens // self._block_tokens]
        if not full_blocks or not len(self._index):
            return ()
        return [(holders, depth * self._block_tokens) for holders, depth in self._index.reach(names_of(full_blocks))]

    def present(self, job: Job) -> dict[SimWorker, int]:
        """The same by worker; those that have none are left out."""
        found: dict[SimWorker, int] = {}
        for holders, num_tokens in self.reach(job):
            for holder, worker in self._worker_of.items():
                if holder & holders:
                    found[worker] = max(num_tokens, found.get(worker, 0))
        return found


def names_of(block_ids: Sequence[int]) -> list[BlockName]:
    """Names of a load's blocks, as tokens would give them: equal for equal ids, and without any order."""
    return [struct.pack("<QQ", block_id * SCATTER & MASK, block_id & MASK) for block_id in block_ids]
