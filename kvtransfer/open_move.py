"""A move that one rank has begun: which pieces are under way, what has arrived, and when it has ended."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.errors import HandoffError
from core.ids import WorkerId
from kvtransfer.move import MoveOutcome, OnMoved
from kvtransfer.pieces import Piece, PieceCutter
from kvtransfer.rank_mover import RankMove, RankPeer
from kvtransfer.route import Route
from kvtransfer.staging import Slots
from kvtransfer.transport import Transfer, TransferState, Transport

MAX_PIECES = 2  # one is copied while the next one waits its turn; more would only delay other moves

Known = tuple[str, WorkerId]
"""A transport's name and a peer that it knows."""


@dataclass(frozen=True, slots=True)
class Link:
    """How a peer is reached.

    Attributes:
        peer: as it was added.
        transport: prepared for the peer.
        route: between this rank and the peer.
        path: what carries the bytes.
    """

    peer: RankPeer
    transport: Transport
    route: Route
    path: str


@dataclass(frozen=True, slots=True, eq=False)
class OpenPiece:
    """A piece under way, and the slots of staging it is sent from."""

    piece: Piece
    transfer: Transfer
    slots: Slots | None


class OpenMove:
    """One move of a rank, from its first piece to its last. Used by the mover's thread only.

    Attributes:
        move: what was asked.
        link: how its peer was reached when it began; it stays with it.
        cutter: what is still to be posted.
        error: why no more is posted, or None.
    """

    def __init__(self, move: RankMove, link: Link, on_moved: OnMoved) -> None:
        self.move = move
        self.link = link
        self.error: HandoffError | None = None
        route = link.route
        self.cutter = PieceCutter(len(move.remote_ids), route.num_rows, route.local.run_bytes, route.max_blocks)
        self._on_moved = on_moved
        self._under_way: list[OpenPiece] = []
        self._busy_since_s = 0.0
        self._busy_s = 0.0
        self._num_bytes = 0
        self._num_descriptors = 0

    @property
    def known(self) -> Known:
        """Which transport may not forget whom while this is open."""
        return self.link.peer.transport, self.move.peer

    @property
    def may_post(self) -> bool:
        """Whether another piece may go under way."""
        return self.error is None and len(self._under_way) < MAX_PIECES

    @property
    def has_ended(self) -> bool:
        """Whether nothing is under way and nothing will be."""
        return not self._under_way and (self.error is not None or self.cutter.is_done)

    def post(self, piece: Piece, local_blocks: Sequence[int], slots: Slots | None, now_s: float) -> None:
        """Puts a piece under way.

        Args:
            piece: what the cutter answered.
            local_blocks: its blocks, as the link's local table counts them.
            slots: that they are in, for a staged route.
            now_s: on the mover's clock.

        Raises:
            HandoffError: it could not be started.
        """
        route, move = self.link.route, self.move
        remote_blocks = move.remote_ids[piece.first_block : piece.end_block]
        local, remote = (
            table.runs_of(blocks, piece.first_row, piece.end_row)
            for table, blocks in ((route.local, local_blocks), (route.remote, remote_blocks))
        )
        if not self._under_way:
            self._busy_since_s = now_s
        transfer = self.link.transport.post(move.peer, move.direction, local, remote)
        self.cutter.take(piece)
        self._under_way.append(OpenPiece(piece, transfer, slots))

    def poll(self, now_s: float) -> list[OpenPiece]:
        """Looks after what is under way; returns what has ended since, well or not."""
        ended = [piece for piece in self._under_way if self._has_ended(piece)]
        self._drop(ended, now_s)
        return ended

    def abandon(self, error: HandoffError, now_s: float) -> list[OpenPiece]:
        """Its peer is dead: nothing is under way any more; returns what was."""
        self.error, ended = error, list(self._under_way)
        self._drop(ended, now_s)
        return ended

    def answer(self) -> None:
        """Tells whoever asked how it ended; once."""
        assert self.has_ended, f"{self.move} has not ended"
        self._on_moved(MoveOutcome(self.error, self._num_bytes, self._num_descriptors, self._busy_s))

    def _has_ended(self, open_piece: OpenPiece) -> bool:
        try:
            state = open_piece.transfer.poll()
        except HandoffError as error:
            self.error = self.error or error
            return True
        if state is TransferState.IN_FLIGHT:
            return False
        piece, route = open_piece.piece, self.link.route
        self._num_bytes += piece.num_blocks * piece.num_rows * route.local.run_bytes
        self._num_descriptors += route.num_descriptors(piece.num_blocks, piece.num_rows)
        return True

    def _drop(self, ended: list[OpenPiece], now_s: float) -> None:
        if not ended:
            return
        self._under_way = [piece for piece in self._under_way if piece not in ended]
        if not self._under_way:
            self._busy_s += now_s - self._busy_since_s
