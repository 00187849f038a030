"""KV blocks between two pools of one process, by copy. For unit tests and colocated halves, not across processes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from core.errors import HandoffError
from core.ids import WorkerId
from engine.kv.pool import BlockPool
from kvtransfer.transport import WriteState


class FinishedWrite:
    """A write that ended before `post_write` returned."""

    def poll(self) -> WriteState:
        """Always DONE."""
        return WriteState.DONE


class LocalTransport:
    """Implements `Transport` by `tensor.copy_`.

    Args:
        worker: this worker.
        pool: its blocks.
        neighbours: the pools that can be reached, by worker id; shared by all transports of the process.
    """

    def __init__(self, worker: WorkerId, pool: BlockPool, neighbours: dict[WorkerId, BlockPool]) -> None:
        self._worker = worker
        self._pool = pool
        self._neighbours = neighbours
        self._peers: set[WorkerId] = set()
        neighbours[worker] = pool

    def metadata(self) -> bytes:
        """The worker's id is all a neighbour needs."""
        return str(self._worker).encode()

    def add_peer(self, peer: WorkerId, metadata: bytes) -> None:
        """See `Transport.add_peer`."""
        if metadata != str(peer).encode() or peer not in self._neighbours:
            raise HandoffError(f"worker {peer} does not live in this process; use the NIXL transport")
        theirs, mine = self._neighbours[peer].layout.block_bytes, self._pool.layout.block_bytes
        if theirs != mine:
            raise HandoffError(
                f"worker {peer} has blocks of {theirs} bytes, this one {mine}; start both with the same settings"
            )
        self._peers.add(peer)

    def remove_peer(self, peer: WorkerId) -> None:
        """See `Transport.remove_peer`."""
        self._peers.discard(peer)

    def post_write(self, peer: WorkerId, local_ids: Sequence[int], remote_ids: Sequence[int]) -> FinishedWrite:
        """Copies at once."""
        target = self._neighbours.get(peer)
        if peer not in self._peers or target is None:
            raise HandoffError(f"worker {peer} is not connected; the request is placed again")
        if max(remote_ids) >= len(target.tensor):
            raise HandoffError(f"worker {peer} has no block {max(remote_ids)}, only {len(target.tensor)}")
        for local_id, remote_id in zip(local_ids, remote_ids, strict=True):
            bytes_of(target)[remote_id].copy_(bytes_of(self._pool)[local_id])
        return FinishedWrite()

    def progress(self) -> None:
        """Nothing is ever under way."""

    def close(self) -> None:
        """Withdraws the pool from the neighbours."""
        self._neighbours.pop(self._worker, None)


def bytes_of(pool: BlockPool) -> Tensor:
    """A pool's memory without its types: `[num_blocks, block_bytes]` uint8, a view."""
    return pool.tensor.view(torch.uint8).flatten(start_dim=1)
