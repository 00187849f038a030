"""Moves of this worker, carried to their end over whatever link works. Connections are those of `worker.peers`."""

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial

from core.errors import HandoffError, IncompatibleLayoutError, PeerLostError
from core.ids import WorkerEndpoint, WorkerId
from core.transfers import PairReport, PairStats, TransferReport
from kvtransfer.group_mover import GroupMover
from kvtransfer.move import Direction, Move, MoveOutcome, OnMoved
from worker.peers import Peer, Peers
from worker.pulling import PullClient
from worker.read_order import ReadAnswer
from worker.task_set import TaskSet
from worker.transfer_log import TransferCounts
from worker.ways import Way

PUSH, PULL = "push", "pull"

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class LinkStats:
    """What is known of the way that KV goes to one peer; see `core.transfers`.

    Attributes:
        transport: in use now, or last.
        path: what carries its bytes.
        direction: who moves them.
        num_retried: moves that were tried again over another transport.
        is_pushed_only: whether the peer cannot read this worker's KV, as where its blocks have another shape, or got
            other bytes when it did.
    """

    transport: str = ""
    path: str = ""
    direction: str = ""
    num_retried: int = 0
    is_pushed_only: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of a move, which has ended.

    Attributes:
        outcome: how; it names the connection's transport.
        peer: the connection it was ordered over; None when there was none, so that it was not begun.
    """

    outcome: MoveOutcome
    peer: Peer | None


class Links:
    """Implements `kvtransfer.move.BlockMoves` over connections that may fail.

    A move that fails is tried once more over another transport, after it is known to have ended. Where KV is pulled,
    a WRITE becomes a READ by the peer, which answers when that has ended.

    Args:
        peers: connections; used on the event loop.
        mover: moves blocks, on all ranks.
        event_loop: where everything happens but the first attempt of a move.
        pulling: asks peers to read; None where KV is pushed.
    """

    def __init__(
        self,
        peers: Peers,
        mover: GroupMover,
        event_loop: asyncio.AbstractEventLoop,
        pulling: PullClient | None = None,
    ) -> None:
        self._peers = peers
        self._mover = mover
        self._event_loop = event_loop
        self._pulling = pulling
        self._stats: dict[WorkerId, LinkStats] = {}
        self._tasks = TaskSet(event_loop)

    def move(self, move: Move, on_moved: OnMoved) -> None:
        """See `BlockMoves.move`. `Peers.get` has connected the peer before.

        Peers read for handoffs only, whose blocks they know; everything else is pushed.
        """
        if self._pulling is not None and move.direction is Direction.WRITE and move.handoff_id:
            self._tasks.spawn(self._pull(self._pulling, move, on_moved))
        else:
            self._try(move, on_moved)

    async def read(self, source: WorkerEndpoint, move: Move) -> ReadAnswer:
        """Carries out a READ that its source has asked for. On the event loop."""
        try:
            await self._peers.get(source)
        except HandoffError as error:
            return ReadAnswer(MoveOutcome(error))
        first = await self._attempt(move)
        last = await self._try_again(move, first)
        if last.peer is None:
            return ReadAnswer(last.outcome)
        return ReadAnswer(last.outcome, last.peer.transport, last.peer.path, was_retried=last.peer is not first.peer)

    def exclude(self, worker: WorkerId, ways: Collection[Way]) -> None:
        """A peer got other bytes than it was sent: the ways they went are never used with it again.

        What it has read is pushed from now on, over any transport: which one it reads over is up to the peer.
        """
        for way in ways:
            if way.direction is Direction.READ:
                self._stats_of(worker).is_pushed_only = True
            else:
                self._peers.ban(worker, way.transport)

    def report(self, counts: TransferCounts) -> TransferReport:
        """What the halves have counted, and how it went there. On the event loop."""
        self._stats = {peer: stats for peer, stats in self._stats.items() if peer in counts.sent}
        return TransferReport(
            sent=tuple(self._report_of(peer, stats) for peer, stats in sorted(counts.sent.items())),
            received=tuple(PairReport(peer, "", stats) for peer, stats in sorted(counts.received.items())),
        )

    async def close(self) -> None:
        """Gives up what is under way; nobody is told."""
        await self._tasks.close()

    # --- inside

    def _try(self, move: Move, on_moved: OnMoved) -> None:
        """The first attempt goes to the mover at once, on the caller's thread, unless the peer must be connected."""
        with self._peers.holding(move.peer) as peer:
            if peer is not None:
                self._mover.move(move, partial(self._on_tried, move, peer, on_moved))
                return
        self._tasks.spawn(self._connect_and_try(move, on_moved))

    def _on_tried(self, move: Move, peer: Peer, on_moved: OnMoved, outcome: MoveOutcome) -> None:
        first = attempt_over(peer, outcome)
        if outcome.error is None:
            on_moved(first.outcome)
        else:
            self._tasks.spawn(self._retry(move, first, on_moved))

    async def _connect_and_try(self, move: Move, on_moved: OnMoved) -> None:
        await self._retry(move, await self._attempt(move), on_moved)

    async def _retry(self, move: Move, first: Attempt, on_moved: OnMoved) -> None:
        on_moved((await self._try_again(move, first)).outcome)

    async def _pull(self, pulling: PullClient, move: Move, on_moved: OnMoved) -> None:
        stats = self._stats_of(move.peer)
        if stats.is_pushed_only:
            self._try(move, on_moved)
            return
        answer = await pulling.read(move)
        if isinstance(answer.outcome.error, IncompatibleLayoutError):
            if not stats.is_pushed_only:
                logger.warning("worker %s cannot read, so its KV is pushed: %s", move.peer, answer.outcome.error)
            stats.is_pushed_only = True
            self._try(move, on_moved)
            return
        stats.num_retried += answer.was_retried
        if answer.outcome.error is None:
            stats.transport, stats.path = answer.transport, answer.path
            outcome = replace(answer.outcome, transport=answer.transport, direction=Direction.READ)
            self._digest(move, outcome, on_moved)
        else:
            on_moved(answer.outcome)

    def _digest(self, move: Move, outcome: MoveOutcome, on_moved: OnMoved) -> None:
        """Adds the digests that a move asks for and that only the source of a read can take."""
        if not move.digest_every:
            on_moved(outcome)
            return
        try:
            self._mover.digests(move, lambda digests: on_moved(replace(outcome, digests=tuple(digests))))
        except HandoffError as error:
            on_moved(replace(outcome, error=error))

    async def _try_again(self, move: Move, first: Attempt) -> Attempt:
        """The last attempt of a move: the first if that went well or another would not help, else a second one."""
        error = first.outcome.error
        if error is None or first.peer is None:
            return first
        if isinstance(error, PeerLostError):
            self._peers.forget(move.peer)
        if isinstance(error, PeerLostError | IncompatibleLayoutError):
            return first
        self._peers.exclude(first.peer)
        second = await self._attempt(move)
        if second.peer is None:
            return replace(first, outcome=not_tried_again(first.outcome, second.outcome))
        logger.warning("a move with worker %s was tried again over %s: %s", move.peer, second.peer.transport, error)
        self._stats_of(move.peer).num_retried += 1
        if second.outcome.error is not None and not isinstance(second.outcome.error, PeerLostError):
            self._peers.exclude(second.peer)
        return replace(second, outcome=added(first.outcome, second.outcome))

    async def _attempt(self, move: Move) -> Attempt:
        """Connects the peer if need be, and carries a move out over that connection."""
        future: asyncio.Future[MoveOutcome] = self._event_loop.create_future()

        def resolve(outcome: MoveOutcome) -> None:
            if not future.done():  # it is when `close` has cancelled whoever waits
                future.set_result(outcome)

        def on_ended(outcome: MoveOutcome) -> None:
            self._event_loop.call_soon_threadsafe(resolve, outcome)

        while True:
            try:
                await self._peers.again(move.peer)
            except HandoffError as error:
                return Attempt(MoveOutcome(error), None)
            with self._peers.holding(move.peer) as peer:
                if peer is not None:  # else it was let go of before this task's turn
                    self._mover.move(move, on_ended)
                    break
        return attempt_over(peer, await future)

    def _is_pulled_by(self, worker: WorkerId) -> bool:
        """Whether a peer reads this worker's KV, instead of being written to."""
        return self._pulling is not None and not self._stats_of(worker).is_pushed_only

    def _stats_of(self, worker: WorkerId) -> LinkStats:
        return self._stats.setdefault(worker, LinkStats())

    def _report_of(self, worker: WorkerId, counts: PairStats) -> PairReport:
        stats, peer = self._stats_of(worker), self._peers.connected(worker)
        is_pulled = self._is_pulled_by(worker)
        if peer is not None and not is_pulled:
            stats.transport, stats.path = peer.transport, peer.path
        if peer is not None:
            stats.direction = PULL if is_pulled else PUSH
        counts = replace(
            counts,
            transport=stats.transport,
            path=stats.path,
            num_retried=stats.num_retried,
        )
        return PairReport(worker, stats.direction, counts)


def attempt_over(peer: Peer, outcome: MoveOutcome) -> Attempt:
    """A move that was ordered over a connection and has ended."""
    return Attempt(replace(outcome, transport=peer.transport), peer)


def not_tried_again(first: MoveOutcome, second: MoveOutcome) -> MoveOutcome:
    """The outcome of a move for whose second attempt there was no connection."""
    assert first.error is not None, "a move that went well is not tried again"
    assert second.error is not None, "an attempt without a connection has failed"
    if isinstance(second.error, PeerLostError):
        return replace(first, error=second.error)
    message = f"{first.error.message}; it is not tried again: {second.error.message}"
    return replace(first, error=type(first.error)(message))


def added(first: MoveOutcome, second: MoveOutcome) -> MoveOutcome:
    """The outcome of a move that took two attempts: the second's end, and what both have moved."""
    return replace(
        second,
        num_bytes=first.num_bytes + second.num_bytes,
        num_descriptors=first.num_descriptors + second.num_descriptors,
        busy_s=first.busy_s + second.busy_s,
    )
