"""Moves over connections that are made anew after a failure."""

import asyncio

from kvtransfer.group_mover import GroupMover
from kvtransfer.move import Move, MoveOutcome, OnMoved
from worker.peers import Peers


class MoverMoves:
    """Implements `BlockMoves`.

    Args:
        mover: carries them out, from every rank.
        peers: forget a connection over which a move has failed.
        event_loop: where `peers` are used.
    """

    def __init__(self, mover: GroupMover, peers: Peers, event_loop: asyncio.AbstractEventLoop) -> None:
        self._mover = mover
        self._peers = peers
        self._event_loop = event_loop

    def move(self, move: Move, on_moved: OnMoved) -> None:
        """See `BlockMoves.move`."""

        def pass_on(outcome: MoveOutcome) -> None:
            if outcome.error is not None:
                self._event_loop.call_soon_threadsafe(self._peers.forget, move.peer)
            on_moved(outcome)

        self._mover.move(move, pass_on)
