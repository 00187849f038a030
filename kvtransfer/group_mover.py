"""Moving KV between all ranks of one worker and all ranks of another, as if each were one. Owns no blocks.

Move of the worker  --MovePlan-->  RankMoves of its ranks  --RankMover-->  outcomes, added up to one
"""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial

from core.errors import HandoffError
from core.ids import WorkerId, rank_id
from kvtransfer.digests import OnDigested, are_sound, parts_got, take_digests
from kvtransfer.geometry import WorkerGeometry, reconcile
from kvtransfer.move import Digest, Move, MoveOutcome, OnMoved
from kvtransfer.move_plan import MovePlan
from kvtransfer.pairing import meeting_ranks
from kvtransfer.rank_mover import RankMover, RankPeer
from kvtransfer.tally import Tally


@dataclass(frozen=True, slots=True)
class PeerLink:
    """Another worker, as this one gets to know it.

    Attributes:
        transport: that the two talk over.
        metadata: of each of its ranks, in order, for this transport.
        geometry: how its KV lies on its ranks.
        is_expected: the peer starts the transfers; else this worker does. A peer may be added as both.
    """

    transport: str
    metadata: Sequence[bytes]
    geometry: WorkerGeometry
    is_expected: bool = False


class GroupMover:
    """All ranks of this worker; implements `kvtransfer.move.BlockMoves`. Callable from any thread.

    Args:
        movers: one per rank, in order; closed by this one.
        geometry: of this worker.

    Attributes:
        geometry: of this worker.
    """

    def __init__(self, movers: Sequence[RankMover], geometry: WorkerGeometry) -> None:
        assert len(movers) == geometry.num_ranks, f"{len(movers)} movers for {geometry.num_ranks} ranks"
        self.geometry = geometry
        self._movers = movers
        self._offers = _common_offers([mover.offers() for mover in movers])
        self._peers: dict[WorkerId, WorkerGeometry] = {}  # until they are dead: moves with them may be open so long
        self._connected: set[WorkerId] = set()
        self._burials: dict[WorkerId, Future[None]] = {}  # of dead peers that are being forgotten
        self._lock = threading.Lock()  # a move is addressed and queued before, or after, its peer comes or goes

    def offers(self) -> Mapping[str, Sequence[bytes]]:
        """What a peer needs to reach every rank, in order, by the transports that all of them have."""
        return self._offers

    def add_peer(self, peer: WorkerId, link: PeerLink) -> "Future[str]":
        """Prepares transfers with all ranks of a peer; moves ordered later use the link that was added last.

        Returns:
            A future of what carries the bytes (see `Transport.add_peer`; several words with `+` between them where
            ranks differ), empty for an expected peer. It fails when a rank cannot reach one of its peers, and as
            IncompatibleLayoutError when the KV of the two cannot be reconciled.
        """
        try:
            self._check(peer, link)
        except HandoffError as error:
            refused: Future[str] = Future()
            refused.set_exception(error)
            return refused
        with self._lock:
            self._peers[peer] = link.geometry
            self._connected.add(peer)
            added = [
                self._movers[mine].add_peer(
                    RankPeer(
                        peer=rank_id(peer, theirs),
                        transport=link.transport,
                        metadata=link.metadata[theirs],
                        geometry=link.geometry.rank(theirs),
                        is_expected=link.is_expected,
                    )
                )
                for mine, theirs in meeting_ranks(self.geometry, link.geometry)
            ]
        return _joined(added)

    def remove_peer(self, peer: WorkerId, *, is_dead: bool = False) -> "Future[None]":
        """Forgets all ranks of a peer as targets; unknown ones are ignored. No move with it begins any more.

        Open moves go on to their end, and the peer may still start transfers where it is expected; unless its
        processes are known to be dead: then moves fail with PeerLostError, and nothing of it is left.

        Returns:
            A future that is done when that has happened on every rank, see `RankMover.remove_peer`; at once where the
            peer is unknown. Whoever says again that a peer is dead waits for the same.
        """
        with self._lock:
            self._connected.discard(peer)
            self._burials = {dead: burial for dead, burial in self._burials.items() if not burial.done()}
            geometry = self._peers.pop(peer, None) if is_dead else self._peers.get(peer)
            if geometry is None:
                return self._burials.get(peer) or _all_done([])
            removed = _all_done(
                [
                    self._movers[mine].remove_peer(rank_id(peer, theirs), is_dead=is_dead)
                    for mine, theirs in meeting_ranks(self.geometry, geometry)
                ]
            )
            if is_dead:
                self._burials[peer] = removed
            return removed

    def move(self, move: Move, on_moved: OnMoved) -> None:
        """See `BlockMoves.move`. A failure on one rank is the move's; it has ended when it has ended on all ranks."""
        with self._lock:
            try:
                plan = self._plan(move)
            except HandoffError as error:
                refusal: HandoffError | None = error
            else:
                refusal = None
                self._begin(plan, partial(self._digest, plan, on_moved) if move.digest_every else on_moved)
        if refusal is not None:
            on_moved(MoveOutcome(refusal))

    def digests(self, move: Move, on_digested: OnDigested) -> None:
        """Takes the digests that a WRITE asks for without moving anything: for KV that the target reads instead.

        Raises:
            HandoffError: the move could not be made either.
        """
        with self._lock:
            plan = self._plan(move)
        take_digests(self._movers, plan.digest_parts(), on_digested)

    def verify(self, digests: Sequence[Digest]) -> "Future[bool]":
        """Whether this worker's blocks, as the target of moves, hold what their source says it sent."""
        future: Future[bool] = Future()
        future.set_running_or_notify_cancel()  # whoever gives up waiting must not hurt the thread that answers
        if not are_sound(digests, self.geometry):
            future.set_result(False)
            return future

        def compare(taken: Sequence[Digest]) -> None:
            future.set_result(set(taken) == set(digests))

        take_digests(self._movers, parts_got(digests, self.geometry), compare)
        return future

    def set_inbound(self, num_inbound: int) -> None:
        """Says how many moves peers may have with the pools now; above zero the ranks help them along."""
        for mover in self._movers:
            mover.set_inbound(num_inbound)

    def close(self) -> None:
        """Closes all ranks' movers; the last call."""
        for mover in self._movers:
            mover.close()

    def _check(self, peer: WorkerId, link: PeerLink) -> None:
        reconcile(self.geometry, link.geometry)
        offered, expected = len(link.metadata), link.geometry.num_ranks
        if offered != expected:
            raise HandoffError(f"worker {peer} says how to reach {offered} ranks, but has {expected}; restart it")

    def _plan(self, move: Move) -> MovePlan:
        if move.peer not in self._connected:
            raise HandoffError(f"worker {move.peer} is not connected any more; the request is placed again")
        return MovePlan(move, self.geometry, self._peers[move.peer])

    def _begin(self, plan: MovePlan, on_moved: OnMoved) -> None:
        moves = list(plan.rank_moves())
        tally = Tally[MoveOutcome](len(moves), lambda outcomes: on_moved(_total(outcomes)))
        for rank, move in moves:
            self._movers[rank].move(move, tally.end)

    def _digest(self, plan: MovePlan, on_moved: OnMoved, outcome: MoveOutcome) -> None:
        """Adds digests to what has been moved well."""
        if outcome.error is not None:
            on_moved(outcome)
            return

        def answer(digests: Sequence[Digest]) -> None:
            on_moved(replace(outcome, digests=tuple(digests)))

        take_digests(self._movers, plan.digest_parts(), answer)


def _common_offers(offers: Sequence[Mapping[str, bytes]]) -> dict[str, list[bytes]]:
    """What all ranks have, in the first one's order."""
    names = [name for name in offers[0] if all(name in offer for offer in offers)]
    return {name: [offer[name] for offer in offers] for name in names}


def _total(outcomes: Sequence[MoveOutcome]) -> MoveOutcome:
    """The ranks' outcomes as the worker's; the first error is its error."""
    return MoveOutcome(
        error=next((outcome.error for outcome in outcomes if outcome.error is not None), None),
        num_bytes=sum(outcome.num_bytes for outcome in outcomes),
        num_descriptors=sum(outcome.num_descriptors for outcome in outcomes),
        busy_s=max(outcome.busy_s for outcome in outcomes),
    )


def _joined(added: "Sequence[Future[str]]") -> "Future[str]":
    """All ranks' paths as one; fails, when all have ended, as the first that failed."""
    joined: Future[str] = Future()

    def end(ended: "Sequence[Future[str]]") -> None:
        if not joined.set_running_or_notify_cancel():
            return  # nobody waits for it any more
        errors = [error for future in ended if (error := future.exception()) is not None]
        if errors:
            joined.set_exception(errors[0])
        else:
            joined.set_result("+".join(sorted({future.result() for future in ended})))

    tally = Tally["Future[str]"](len(added), end)
    for future in added:
        future.add_done_callback(tally.end)
    return joined


def _all_done(removed: "Sequence[Future[None]]") -> "Future[None]":
    """Done when all are, which do not fail; cannot be cancelled."""
    joined: Future[None] = Future()
    joined.set_running_or_notify_cancel()  # whoever gives up waiting must not hurt the thread that answers
    if not removed:
        joined.set_result(None)
        return joined
    tally = Tally["Future[None]"](len(removed), lambda _: joined.set_result(None))
    for future in removed:
        future.add_done_callback(tally.end)
    return joined
