"""Runs of a rank's memory over a `PairGroup`, in chunks."""

import torch
from torch import Tensor

from kvtransfer.memory import RankMemory
from kvtransfer.pair_group import PairGroup
from kvtransfer.run_bytes import chunks, gather, scatter
from kvtransfer.runs import RunIds, RunTable

CHUNK_BYTES = 2 << 20  # fits a core's cache, and is large enough that its fixed cost does not show


class RunStream:
    """One end of a pair. The peer sends as many bytes as this end receives, and the other way round.

    Only the thread that calls writes to the rank's memory, and only complete chunks: once it has ended nothing lands.
    """

    def __init__(self, group: PairGroup, memory: RankMemory) -> None:
        self.group = group
        self._memory = memory
        self._buffer = torch.empty(CHUNK_BYTES, dtype=torch.uint8, device=memory.pool.device)

    def send(self, table: RunTable, run_ids: RunIds) -> None:
        """Returns when all is on its way. Raises as `PairGroup.send`."""
        region = self._region(table)
        for chunk in chunks(table, run_ids, CHUNK_BYTES):
            payload = gather(region, chunk, self._buffer)
            self._settle()
            self.group.send(payload)

    def receive(self, table: RunTable, run_ids: RunIds) -> None:
        """Returns when all is where it belongs. Raises as `PairGroup.receive`."""
        region = self._region(table)
        for chunk in chunks(table, run_ids, CHUNK_BYTES):
            payload = self._buffer[: sum(end - begin for begin, end in chunk)]
            self.group.receive(payload)
            scatter(payload, region, chunk)
            self._settle()

    def _region(self, table: RunTable) -> Tensor:
        return self._memory.region(table.region).flatten()

    def _settle(self) -> None:
        """Waits for copies that a GPU makes behind our back."""
        if self._buffer.is_cuda:
            torch.cuda.current_stream(self._buffer.device).synchronize()
