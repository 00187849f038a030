"""The seam to one rank's end of the transfer plane, in this process or in another one of the same worker."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from core.ids import WorkerId
from kvtransfer.geometry import RankGeometry
from kvtransfer.move import Direction, OnMoved
from kvtransfer.packing import BlockPart

OnSummed = Callable[[Sequence[int]], None]
"""Hears the checksums of parts, in the order they were asked for. Called exactly once, from any thread."""


@dataclass(frozen=True, slots=True)
class RankPeer:
    """One rank of another worker, as a rank of this one gets to know it.

    Attributes:
        peer: its name on the transfer plane; see `core.ids.rank_id`.
        transport: that the two talk over.
        metadata: the peer's, for this transport.
        geometry: what it holds.
        is_expected: the peer starts the transfers; else this rank does.
    """

    peer: WorkerId
    transport: str
    metadata: bytes
    geometry: RankGeometry
    is_expected: bool


@dataclass(frozen=True, slots=True)
class RankMove:
    """A rank's part of a `kvtransfer.move.Move`: of every block, the heads that both ranks hold.

    Attributes:
        peer: the other rank.
        direction: WRITE when this rank has the KV.
        local_ids: blocks of this rank's pool.
        remote_ids: blocks of the peer's pool.
        skip_tokens: as in `Move`.
        final_after_step: as in `Move`; all ranks count the same steps.
    """

    peer: WorkerId
    direction: Direction
    local_ids: Sequence[int]
    remote_ids: Sequence[int]
    skip_tokens: int = 0
    final_after_step: int | None = None


class RankMover(Protocol):
    """Moves blocks of one rank's pool. Callable from any thread; only `offers` and `close` wait for anything.

    What is asked is begun in the order it was asked.
    """

    def offers(self) -> Mapping[str, bytes]:
        """By name of the transport: what a peer needs to reach this rank. The preferred one first."""
        ...

    def add_peer(self, peer: RankPeer) -> "Future[str]":
        """Prepares transfers with a peer, over one transport; moves begun later use the one that was added last.

        Returns:
            A future of what carries the bytes (see `Transport.add_peer`), empty for an expected peer. It fails with
            HandoffError when the peer cannot be reached.
        """
        ...

    def remove_peer(self, peer: WorkerId, *, is_dead: bool) -> "Future[None]":
        """Forgets a peer as a target; no move with it begins any more.

        Open moves go on to their end, and the peer may still start transfers where it is expected; unless its process
        is known to be dead: then moves fail with PeerLostError, and nothing of it is left.

        Returns:
            A future that is done when that has happened. Of a dead peer nothing lands any more after it, so only then
            may blocks that it could write be given to others. It never fails, is never cancelled, and is not done at
            all where this rank does not answer any more.
        """
        ...

    def move(self, move: RankMove, on_moved: OnMoved) -> None:
        """Queues a move; its outcome has no digests.

        The blocks must stay leased until `on_moved`. Moves that have not ended at `close` are never answered.
        """
        ...

    def checksums(self, parts: Sequence[BlockPart], on_summed: OnSummed) -> None:
        """Sums parts of this rank's blocks up; see `kvtransfer.packing.PoolReader.checksum`.

        Open moves go on meanwhile. What has not been summed up at `close` is never answered.
        """
        ...

    def set_inbound(self, num_inbound: int) -> None:
        """Says how many moves peers may have with this pool now; above zero the rank helps them along."""
        ...

    def close(self) -> None:
        """The last call. Open moves are not waited for."""
        ...
