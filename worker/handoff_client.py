"""The prefill half's orders, carried to peers: control over gRPC, bytes by the block mover."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

import grpc

from core.clock import Clock
from core.errors import BatonError, HandoffError
from core.ids import WorkerEndpoint, WorkerId
from kvtransfer.group_mover import GroupMover
from kvtransfer.move import Direction, Move, MoveOutcome
from kvtransfer.port import FinishTimes, HandoffSource, LastBlocks, Reservation
from worker import wire
from worker.mailbox import Mailbox
from worker.peers import Peer, Peers

BEGIN_TIMEOUT_S = 60.0  # how long a computed prompt waits for room at its target before it is placed again
COMMIT_TIMEOUT_S = 30.0
ABORT_TIMEOUT_S = 10.0
ABORT_TRIES = 3  # an abort that is lost costs the target's blocks until this process ends

logger = logging.getLogger(__name__)

T = TypeVar("T")


class GrpcHandoffPort:
    """Implements `HandoffPort`. Called on the worker's loop; talks on the event loop; answers by the mailbox.

    Args:
        worker: this worker.
        peers: connections to targets.
        mover: writes blocks, from every rank.
        mailbox: of the loop that owns the half.
        event_loop: where the gRPC calls run.
        clock: the half's.
    """

    def __init__(  # noqa: PLR0917 - collaborators, given once
        self,
        worker: WorkerId,
        peers: Peers,
        mover: GroupMover,
        mailbox: Mailbox,
        event_loop: asyncio.AbstractEventLoop,
        clock: Clock,
    ) -> None:
        self._worker = worker
        self._peers = peers
        self._mover = mover
        self._mailbox = mailbox
        self._event_loop = event_loop
        self._clock = clock
        self._source: HandoffSource | None = None
        self._calls: set[asyncio.Task[None]] = set()

    def bind(self, source: HandoffSource) -> None:
        """Says who hears the answers; once, before the first order."""
        self._source = source

    @property
    def source(self) -> HandoffSource:
        """Who hears the answers."""
        assert self._source is not None, "bind() comes before the first order"
        return self._source

    def begin(self, handoff_id: str, target: WorkerEndpoint) -> None:
        """See `HandoffPort.begin`."""
        self._spawn(self._begin(handoff_id, target))

    def write(self, handoff_id: str, target: WorkerEndpoint, local: Sequence[int], remote: Sequence[int]) -> None:
        """See `HandoffPort.write`."""

        def on_moved(outcome: MoveOutcome) -> None:
            if outcome.error is not None:
                self._event_loop.call_soon_threadsafe(self._peers.forget, target.worker)
            self._mailbox.post(partial(self.source.on_written, handoff_id, outcome.error, self._clock.now_s()))

        self._mover.move(Move(target.worker, Direction.WRITE, local, remote), on_moved)

    def finish(self, handoff_id: str, target: WorkerEndpoint, last: LastBlocks) -> None:
        """See `HandoffPort.finish`."""

        def on_moved(outcome: MoveOutcome) -> None:
            written_s = self._clock.now_s()
            if outcome.error is None:
                self._spawn(self._commit(handoff_id, target, last, written_s))
                return
            self._event_loop.call_soon_threadsafe(self._peers.forget, target.worker)
            self._answer_finish(handoff_id, outcome.error, written_s)

        if last.local:
            self._mover.move(Move(target.worker, Direction.WRITE, last.local, last.remote), on_moved)
        else:
            on_moved(MoveOutcome(None))

    def abort(self, handoff_id: str, target: WorkerEndpoint) -> None:
        """See `HandoffPort.abort`."""
        self._spawn(self._abort(handoff_id, target))

    async def close(self) -> None:
        """Gives up all calls; the half is not told."""
        for task in self._calls:
            task.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    async def _begin(self, handoff_id: str, target: WorkerEndpoint) -> None:
        request = wire.begin_to_proto(handoff_id, self._worker, target.worker)

        async def call(peer: Peer) -> Reservation:
            return wire.reservation_from_proto(await peer.stub.BeginHandoff(request, timeout=BEGIN_TIMEOUT_S))

        answer = await self._call(target, call)
        if isinstance(answer, BatonError):
            self._mailbox.post(partial(self.source.on_begin_refused, handoff_id, answer))
        else:
            self._mailbox.post(partial(self.source.on_begun, handoff_id, answer))

    async def _commit(self, handoff_id: str, target: WorkerEndpoint, last: LastBlocks, written_s: float) -> None:
        request = wire.commit_to_proto(handoff_id, self._worker, target.worker, last.first_token, last.num_blocks)

        async def call(peer: Peer) -> None:
            await peer.stub.CommitHandoff(request, timeout=COMMIT_TIMEOUT_S)

        self._answer_finish(handoff_id, await self._call(target, call), written_s)

    def _answer_finish(self, handoff_id: str, error: BatonError | None, written_s: float) -> None:
        times = FinishTimes(written_s, acknowledged_s=self._clock.now_s())
        self._mailbox.post(partial(self.source.on_finished, handoff_id, error, times))

    async def _abort(self, handoff_id: str, target: WorkerEndpoint) -> None:
        request = wire.abort_to_proto(handoff_id, self._worker, target.worker)

        async def call(peer: Peer) -> None:
            await peer.stub.AbortHandoff(request, timeout=ABORT_TIMEOUT_S)

        for attempt in range(ABORT_TRIES):
            await asyncio.sleep(attempt)
            error = await self._call(target, call)
            if error is None:
                return
        logger.warning("worker %s did not hear that handoff %s ended: %s", target.worker, handoff_id, error)

    async def _call(self, target: WorkerEndpoint, call: Callable[[Peer], Awaitable[T]]) -> T | BatonError:
        """Makes one call to a peer; what goes wrong comes back as a value, for it must reach the half.

        A cancellation that is not this task's own is a channel closed under the call, because a newer incarnation
        of the peer has come.
        """
        try:
            return await call(await self._peers.get(target))
        except grpc.aio.AioRpcError as error:
            return HandoffError(f"worker {target.worker} answered {error.code().name}: {error.details()}")
        except HandoffError as error:
            return error
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            return HandoffError(f"worker {target.worker} was replaced by a newer incarnation during the call")

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine on the event loop, keeping a reference until it ends. From any thread."""

        def start() -> None:
            task = self._event_loop.create_task(coroutine)
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)

        self._event_loop.call_soon_threadsafe(start)
