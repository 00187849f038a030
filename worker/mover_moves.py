"""Moves of whole blocks by writes of the group mover."""

import asyncio
from collections.abc import Sequence
from functools import partial

from core.clock import Clock
from core.errors import HandoffError
from engine.kv.layout import KvLayout
from engine.kv.progress import StepProgress
from kvtransfer.group_mover import GroupMover
from kvtransfer.move import Digest, Direction, Move, MoveOutcome, OnMoved
from worker.peers import Peers

POLL_S = 0.001  # between two looks at a step under way


class MoverMoves:
    """Implements `BlockMoves` between workers that are alike. Blocks that are not final yet leave after their step.

    Args:
        mover: writes blocks, from every rank.
        peers: a connection over which a write failed is made anew.
        event_loop: waits for steps, and is where `peers` are used.
        progress: of this worker's engine.
        layout: of a block on one rank.
        clock: for how long writes take.
    """

    def __init__(  # noqa: PLR0917 - collaborators, given once
        self,
        mover: GroupMover,
        peers: Peers,
        event_loop: asyncio.AbstractEventLoop,
        progress: StepProgress,
        layout: KvLayout,
        clock: Clock,
    ) -> None:
        self._mover = mover
        self._peers = peers
        self._event_loop = event_loop
        self._progress = progress
        self._layout = layout
        self._clock = clock

    def move(self, move: Move, on_moved: OnMoved) -> None:
        """See `BlockMoves.move`."""
        assert move.direction is Direction.WRITE, "this mover only writes"
        assert not move.skip_tokens, "this mover takes whole blocks"
        if move.final_after_step is None:
            self._write(move, on_moved)
        else:
            self._event_loop.call_soon_threadsafe(self._await_step, move, move.final_after_step, on_moved)

    async def verify(self, digests: Sequence[Digest]) -> bool:
        """This mover takes no digests, so none it is shown is one it can vouch for."""
        return not digests

    def _await_step(self, move: Move, step: int, on_moved: OnMoved) -> None:
        if self._progress.num_final_layers(step) == self._layout.num_layers:
            self._write(move, on_moved)
        else:
            self._event_loop.call_later(POLL_S, partial(self._await_step, move, step, on_moved))

    def _write(self, move: Move, on_moved: OnMoved) -> None:
        started_s = self._clock.now_s()

        def on_written(error: HandoffError | None) -> None:
            if error is not None:
                self._event_loop.call_soon_threadsafe(self._peers.forget, move.peer)
            busy_s = self._clock.now_s() - started_s
            num_blocks = len(move.local_ids)
            on_moved(MoveOutcome(error, num_blocks * self._layout.block_bytes, num_blocks, busy_s))

        self._mover.write(move.peer, move.local_ids, move.remote_ids, on_written)
