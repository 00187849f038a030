"""Handing KV from all ranks of one worker to all ranks of another, as if each were one. Owns no blocks.

How blocks lie on the ranks decides who writes what:

    mirrored      every rank holds its heads of every block   ->  rank r writes all blocks to the peer's rank r
    partitioned   every rank holds some of the blocks whole   ->  the rank of a block writes it to the rank it is for:

        block ids   0 ........ per_rank ........ 2 per_rank ........
                    [ rank 0     )[ rank 1        )[ rank 2 ...       a rank counts its own from 0
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from core.errors import HandoffError
from core.ids import WorkerId, rank_id
from kvtransfer.rank_mover import OnWritten, RankMover

BlockPairs = list[tuple[int, int]]
"""(local, remote) ids of blocks, both as the ranks count them."""


class GroupMover:
    """All ranks of this worker.

    Args:
        movers: one per rank, in order; closed by this one.
        num_blocks: in the book of the whole worker.
        is_partitioned: how blocks lie on the ranks, here and at every peer.
    """

    def __init__(self, movers: Sequence[RankMover], num_blocks: int, *, is_partitioned: bool) -> None:
        assert num_blocks % len(movers) == 0 or not is_partitioned, f"{num_blocks} blocks on {len(movers)} ranks"
        self._movers = movers
        self._num_blocks = num_blocks
        self._is_partitioned = is_partitioned
        self._peer_blocks: dict[WorkerId, int] = {}
        self._lock = threading.Lock()  # a write is addressed and queued before, or after, its peer comes or goes

    def metadata(self) -> list[bytes]:
        """What a peer needs to write to each rank, in order."""
        return [mover.metadata() for mover in self._movers]

    def add_peer(self, peer: WorkerId, metadata: Sequence[bytes], num_blocks: int) -> "Future[None]":
        """Prepares writes to all ranks of a peer that is divided as this worker is.

        Args:
            peer: the worker.
            metadata: of each of its ranks, in order.
            num_blocks: in its book.

        Returns:
            A future that fails with HandoffError when a rank cannot reach one of its peers.
        """
        done: Future[None] = Future()
        if len(metadata) != len(self._movers):
            ranks = f"it has {len(metadata)} ranks, this worker {len(self._movers)}"
            done.set_exception(HandoffError(f"worker {peer} is divided otherwise: {ranks}"))
            return done
        pairs = self._pairs()
        countdown = Countdown(len(pairs), lambda error: _resolve(done, error))
        with self._lock:
            self._peer_blocks[peer] = num_blocks
            added = [
                self._movers[rank].add_peer(rank_id(peer, peer_rank), metadata[peer_rank])
                for rank, peer_rank in pairs
            ]
        for future in added:
            future.add_done_callback(lambda future: countdown.end(_error_of(future)))
        return done

    def remove_peer(self, peer: WorkerId) -> None:
        """Forgets all ranks of a peer whose process is gone, as soon as no write to them is under way."""
        with self._lock:
            self._peer_blocks.pop(peer, None)
            for rank, peer_rank in self._pairs():
                self._movers[rank].remove_peer(rank_id(peer, peer_rank))

    def write(
        self, peer: WorkerId, local_ids: Sequence[int], remote_ids: Sequence[int], on_written: OnWritten
    ) -> None:
        """Queues a write of blocks, at least one; `on_written` hears of its end when it has ended on all ranks.

        A failure on one rank is the failure of the write. From any thread; `on_written` as in `RankMover.write`.
        """
        with self._lock:
            peer_blocks = self._peer_blocks.get(peer)
            if peer_blocks is not None:
                parts = self._parts(peer_blocks, local_ids, remote_ids)
                countdown = Countdown(len(parts), on_written)
                for (rank, peer_rank), blocks in parts.items():
                    local, remote = zip(*blocks, strict=True)
                    self._movers[rank].write(rank_id(peer, peer_rank), local, remote, countdown.end)
        if peer_blocks is None:
            on_written(HandoffError(f"worker {peer} is not connected any more"))

    def expect_connection(self) -> None:
        """Says that a peer is about to connect to all ranks."""
        for mover in self._movers:
            mover.expect_connection()

    def set_inbound(self, num_inbound: int) -> None:
        """Says how many handoffs may be written into the pools now."""
        for mover in self._movers:
            mover.set_inbound(num_inbound)

    def close(self) -> None:
        """Closes all ranks' movers; the last call."""
        for mover in self._movers:
            mover.close()

    def _pairs(self) -> list[tuple[int, int]]:
        """Which of our ranks writes to which ranks of a peer."""
        ranks = range(len(self._movers))
        return [
            (rank, peer_rank) for rank in ranks for peer_rank in ranks if self._is_partitioned or rank == peer_rank
        ]

    def _parts(
        self, peer_blocks: int, local_ids: Sequence[int], remote_ids: Sequence[int]
    ) -> dict[tuple[int, int], BlockPairs]:
        """What each pair of ranks moves to a peer of so many blocks."""
        blocks = list(zip(local_ids, remote_ids, strict=True))
        if not self._is_partitioned:
            return dict.fromkeys(self._pairs(), blocks)
        per_rank = self._num_blocks // len(self._movers)
        peer_per_rank = peer_blocks // len(self._movers)
        parts: defaultdict[tuple[int, int], BlockPairs] = defaultdict(list)
        for local, remote in blocks:
            parts[local // per_rank, remote // peer_per_rank].append((local % per_rank, remote % peer_per_rank))
        return parts


class Countdown:
    """Waits for a number of ends; keeps the first error. Thread-safe.

    Args:
        num_parts: ends to come, at least one.
        on_end: called once, by whoever brings the last end, with the first error there was.
    """

    def __init__(self, num_parts: int, on_end: Callable[[HandoffError | None], None]) -> None:
        assert num_parts > 0, "nothing to wait for"
        self._num_open = num_parts
        self._error: HandoffError | None = None
        self._on_end = on_end
        self._lock = threading.Lock()

    def end(self, error: HandoffError | None) -> None:
        """One part has ended."""
        with self._lock:
            self._error = self._error or error
            self._num_open -= 1
            is_last = self._num_open == 0
        if is_last:
            self._on_end(self._error)


def _error_of(future: "Future[None]") -> HandoffError | None:
    error = future.exception()
    assert error is None or isinstance(error, HandoffError), f"a mover answered {error!r}"
    return error


def _resolve(done: "Future[None]", error: HandoffError | None) -> None:
    if not done.set_running_or_notify_cancel():
        return  # nobody waits for it any more
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
