"""Carries out one rank's moves: what is under way, with whom, over which transport. No thread; `advance` drives it.

Moves take turns, a piece each. A move keeps the transport it began with, and a transport forgets a peer only when the
last move between them has ended: forgotten under a transfer, it would say that the transfer has ended.
"""

import logging
from collections.abc import Mapping, Sequence

from core.clock import Clock
from core.errors import HandoffError, PeerLostError
from core.ids import WorkerId
from engine.kv.progress import StepProgress
from kvtransfer.geometry import RankGeometry
from kvtransfer.memory import RankMemory
from kvtransfer.move import MoveOutcome, OnMoved
from kvtransfer.open_move import Known, Link, OpenMove, OpenPiece
from kvtransfer.packing import BlockPart, PoolReader
from kvtransfer.pieces import Piece
from kvtransfer.rank_mover import RankMove, RankPeer
from kvtransfer.route import route_between
from kvtransfer.staging import Slots, Staging
from kvtransfer.transport import Transport

logger = logging.getLogger(__name__)


class Carrier:
    """One rank's peers and moves. Used by one thread.

    Args:
        transports: by name, the preferred one first; closed by this object.
        memory: of the rank, which all transports have registered.
        geometry: of the rank.
        progress: of its engine.
        clock: measures how long bytes are under way.
    """

    def __init__(
        self,
        transports: Mapping[str, Transport],
        memory: RankMemory,
        geometry: RankGeometry,
        progress: StepProgress,
        clock: Clock,
    ) -> None:
        self._transports = transports
        self._memory = memory
        self._geometry = geometry
        self._progress = progress
        self._clock = clock
        self._reader = PoolReader(memory.pool, geometry)
        self._staging = Staging(memory, geometry, self._reader)
        self._links: dict[WorkerId, Link] = {}
        self._open: list[OpenMove] = []
        self._known: set[Known] = set()  # which transport has which peers
        self._expected: set[Known] = set()  # of the known ones, those that start transfers
        self._leaving: set[Known] = set()  # of the known ones, those to forget when their last move has ended

    @property
    def has_open_moves(self) -> bool:
        """Whether there is anything to poll."""
        return bool(self._open)

    def offers(self) -> dict[str, bytes]:
        """See `RankMover.offers`."""
        return {name: transport.metadata() for name, transport in self._transports.items()}

    def add_peer(self, peer: RankPeer) -> str:
        """Gets to know a peer; returns what carries the bytes, see `RankMover.add_peer`.

        Raises:
            HandoffError: it cannot be reached, or not over this transport.
        """
        transport = self._transports.get(peer.transport)
        if transport is None:
            raise HandoffError(
                f"worker {peer.peer} is to be reached over {peer.transport!r}, but there is only "
                f"{', '.join(self._transports)} here; give both workers the same --kv-transport"
            )
        known = (peer.transport, peer.peer)
        if peer.is_expected:
            transport.expect_peer(peer.peer, peer.metadata)
            self._expected.add(known)
            path = ""
        else:
            path = self._link(peer, transport)
        self._known.add(known)
        self._leaving.discard(known)
        return path

    def remove_peer(self, peer: WorkerId, *, is_dead: bool) -> None:
        """See `RankMover.remove_peer`."""
        self._links.pop(peer, None)
        if is_dead:
            self._bury(peer)
        else:
            self._leaving |= {known for known in self._known if known[1] == peer} - self._expected
            self._forget_leaving()

    def move(self, move: RankMove, on_moved: OnMoved) -> None:
        """Begins a move; `on_moved` hears of its end from here or from `advance`."""
        try:
            self._open.append(OpenMove(move, self._link_for(move), on_moved))
        except HandoffError as error:
            on_moved(MoveOutcome(error))

    def checksums(self, parts: Sequence[BlockPart]) -> list[int]:
        """See `RankMover.checksums`."""
        return [self._reader.checksum(part) for part in parts]

    def part_bytes(self, part: BlockPart) -> int:
        """How much there is to sum up in a part."""
        return self._reader.part_bytes(part)

    def advance(self) -> bool:
        """Polls what is under way and posts what may follow, a piece per move.

        Returns:
            Whether anything ended or began, so that more may be there to do at once.
        """
        has_changed = False
        for move in self._open:
            ended = move.poll(self._clock.now_s())
            self._give_back(ended)
            has_changed |= bool(ended) | self._post_next(move)
        ended_moves = [move for move in self._open if move.has_ended]
        self._open = [move for move in self._open if not move.has_ended]
        for ended_move in ended_moves:
            if ended_move.error is not None:
                logger.warning("%s", ended_move.error)
            ended_move.answer()
        self._forget_leaving()
        return has_changed

    def progress(self) -> None:
        """Lets what peers started advance."""
        for transport in self._transports.values():
            transport.progress()

    def close(self) -> None:
        """Closes the transports; open moves are never answered."""
        for transport in self._transports.values():
            transport.close()

    def _link_for(self, move: RankMove) -> Link:
        link = self._links.get(move.peer)
        if link is None:
            raise HandoffError(f"worker {move.peer} is not connected any more; the request is placed again")
        link.route.check(move.direction)
        return link

    def _link(self, peer: RankPeer, transport: Transport) -> str:
        """Prepares transfers with a peer; a transport that is not used for it any more forgets it."""
        old, new = self._links.get(peer.peer), self._link_in_use(peer)
        if new is None:
            route = route_between(self._geometry, peer.geometry, self._memory.staging.numel())
            path = transport.add_peer(peer.peer, peer.metadata, route.local, route.remote)
            new = Link(peer, transport, route, path)
        self._links[peer.peer] = new
        if old is not None and old.peer.transport != peer.transport:
            self._leaving |= {(old.peer.transport, peer.peer)} - self._expected
            self._forget_leaving()
        return new.path

    def _link_in_use(self, peer: RankPeer) -> Link | None:
        """The link of open moves with a peer over the same transport: nothing may be prepared anew under them."""
        known = (peer.transport, peer.peer)
        link = next((move.link for move in self._open if move.known == known), None)
        if link is not None and link.peer != peer:
            raise HandoffError(f"worker {peer.peer} says something else of itself than before; restart it")
        return link

    def _bury(self, peer: WorkerId) -> None:
        """Has every transport, whether it knows a dead peer or not, take in what it has sent; fails its moves."""
        for known in {known for known in self._known if known[1] == peer}:
            for book in (self._known, self._expected, self._leaving):
                book.discard(known)
        lost = [move for move in self._open if move.move.peer == peer]
        self._open = [move for move in self._open if move not in lost]
        for transport in self._transports.values():
            transport.remove_peer(peer)  # before anybody hears that nothing is under way
        for move in lost:
            error = PeerLostError(f"worker {peer} died during a transfer; the request is placed again")
            self._give_back(move.abandon(error, self._clock.now_s()))
            move.answer()

    def _forget_leaving(self) -> None:
        if not self._leaving:
            return
        in_use = {move.known for move in self._open}
        for known in self._leaving - in_use:
            name, peer = known
            self._transports[name].remove_peer(peer)
            self._known.discard(known)
            self._leaving.discard(known)

    def _post_next(self, move: OpenMove) -> bool:
        """Puts a move's next piece under way, if it may go now and is final; whether anything became of it."""
        piece = move.cutter.peek(self._num_ready_rows(move)) if move.may_post else None
        if piece is None:
            return False
        source = self._source_of(move, piece)
        if source is None:
            return False
        blocks, slots = source
        try:
            move.post(piece, blocks, slots, self._clock.now_s())
        except HandoffError as error:
            move.error = error
            if slots is not None:
                self._staging.give_back(slots)
        return True

    def _num_ready_rows(self, move: OpenMove) -> int:
        """Leading rows of the blocks that no step writes any more."""
        step, num_rows = move.move.final_after_step, move.link.route.num_rows
        if step is None:
            return num_rows
        return self._progress.num_final_layers(step) * num_rows // self._geometry.layout.num_layers

    def _source_of(self, move: OpenMove, piece: Piece) -> tuple[Sequence[int], Slots | None] | None:
        """Where a piece's blocks are, as the link's local table counts them; None while staging has no room."""
        staging = move.link.route.staging
        if staging is None:
            return move.move.local_ids[piece.first_block : piece.end_block], None
        slots = self._staging.try_pack(move.move, piece, staging)
        return None if slots is None else (slots.ids, slots)

    def _give_back(self, ended: Sequence[OpenPiece]) -> None:
        for piece in ended:
            if piece.slots is not None:
                self._staging.give_back(piece.slots)
