"""A half's orders as a source of handoffs, carried to peers: control over gRPC, bytes by the transfer plane."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from itertools import chain, repeat
from typing import TypeVar

import grpc
from baton.v1 import handoff_pb2

from core.clock import Clock
from core.errors import BatonError, CorruptKvError, HandoffError, PeerLostError, UnknownOutcomeError
from core.ids import WorkerEndpoint, WorkerId, request_id_of
from core.logs import about
from kvtransfer.move import BlockMoves, Digest, Move, MoveOutcome
from kvtransfer.port import HandoffSource, Reservation
from worker import wire
from worker.mailbox import Mailbox
from worker.open_moves import OpenMoves
from worker.peers import Peers
from worker.rpc_errors import error_of
from worker.task_set import TaskSet
from worker.ways import OnCorrupt, Way

BEGIN_TIMEOUT_S = 60.0  # how long a computed prompt waits for room at its target before it is placed again
MIGRATION_BEGIN_TIMEOUT_S = (
    3.0  # a running sequence need not wait: where there is no room, it stays or goes elsewhere
)
COMMIT_TIMEOUT_S = 30.0
RENEW_TIMEOUT_S = 10.0  # then the next renewal is due
ABORT_TIMEOUT_S = 10.0
# Seconds before each try. The last one repeats until the target has heard or is dead: its blocks are held that long.
ABORT_PAUSES_S = (0.0, 1.0, 2.0, 4.0, 8.0)

logger = logging.getLogger(__name__)

T = TypeVar("T")


class GrpcHandoffPort:
    """Implements `HandoffPort`. Called on the worker's loop; talks on the event loop; answers by the mailbox.

    Args:
        worker: this worker.
        peers: connections to targets.
        moves: copies blocks.
        mailbox: of the loop that owns the half.
        event_loop: where the gRPC calls run.
        clock: the half's.
        on_corrupt: hears which targets found blocks that are not what was sent, and how they went there.
        begin_timeout_s: how long a target may take to find room.
    """

    def __init__(  # noqa: PLR0917 - collaborators, given once
        self,
        worker: WorkerId,
        peers: Peers,
        moves: BlockMoves,
        mailbox: Mailbox,
        event_loop: asyncio.AbstractEventLoop,
        clock: Clock,
        on_corrupt: OnCorrupt,
        *,
        begin_timeout_s: float = BEGIN_TIMEOUT_S,
    ) -> None:
        self._worker = worker
        self._peers = peers
        self._moves = moves
        self._mailbox = mailbox
        self._event_loop = event_loop
        self._clock = clock
        self._on_corrupt = on_corrupt
        self._begin_timeout_s = begin_timeout_s
        self._open_moves = OpenMoves()
        self._source: HandoffSource | None = None
        self._calls = TaskSet(event_loop)

    def bind(self, source: HandoffSource) -> None:
        """Says who hears the answers; once, before the first order."""
        self._source = source

    @property
    def source(self) -> HandoffSource:
        """Who hears the answers."""
        assert self._source is not None, "bind() comes before the first order"
        return self._source

    def begin(self, handoff_id: str, target: WorkerEndpoint, num_tokens: int | None) -> None:
        """See `HandoffPort.begin`."""
        self._calls.spawn(self._begin(handoff_id, target, num_tokens))

    def write(self, handoff_id: str, target: WorkerEndpoint, write_id: int, move: Move) -> None:
        """See `HandoffPort.write`."""
        assert move.peer == target.worker, f"a move to {move.peer} in a handoff to {target.worker}"

        def on_moved(outcome: MoveOutcome) -> None:
            answer = partial(self.source.on_written, handoff_id, write_id, outcome, self._clock.now_s())
            self._open_moves.end(handoff_id, outcome, partial(self._mailbox.post, answer))

        self._open_moves.begin(handoff_id)
        self._moves.move(move, on_moved)

    def finish(self, handoff_id: str, target: WorkerEndpoint, token_ids: Sequence[int], num_blocks: int) -> None:
        """See `HandoffPort.finish`."""

        def on_ended(error: HandoffError | None, digests: list[Digest], ways: set[Way]) -> None:
            if error is None:
                ids = handoff_id, self._worker, target.worker
                request = wire.commit_to_proto(*ids, token_ids=token_ids, num_blocks=num_blocks, digests=digests)
                self._calls.spawn(self._commit(handoff_id, target, request, ways))
            else:
                self._answer_finish(handoff_id, error)

        self._open_moves.when_ended(handoff_id, on_ended)

    def renew(self, target: WorkerEndpoint, handoff_ids: Sequence[str]) -> None:
        """See `HandoffPort.renew`."""
        self._calls.spawn(self._renew(target, handoff_ids))

    def abort(self, handoff_id: str, target: WorkerEndpoint) -> None:
        """See `HandoffPort.abort`."""
        self._open_moves.forget(handoff_id)
        self._calls.spawn(self._abort(handoff_id, target))

    async def close(self) -> None:
        """Gives up all calls; the half is not told."""
        await self._calls.close()

    async def _begin(self, handoff_id: str, target: WorkerEndpoint, num_tokens: int | None) -> None:
        request = wire.begin_to_proto(handoff_id, self._worker, target.worker, num_tokens)

        async def call() -> Reservation:
            peer = await self._peers.get(target)
            return wire.reservation_from_proto(await peer.stub.BeginHandoff(request, timeout=self._begin_timeout_s))

        answer = await self._call(target, call)
        if isinstance(answer, BatonError):
            self._mailbox.post(partial(self.source.on_begin_refused, handoff_id, answer))
        else:
            self._mailbox.post(partial(self.source.on_begun, handoff_id, answer))

    async def _commit(
        self,
        handoff_id: str,
        target: WorkerEndpoint,
        request: handoff_pb2.CommitHandoffRequest,
        ways: Collection[Way],
    ) -> None:
        async def call() -> None:
            await self._peers.handoffs(target).CommitHandoff(request, timeout=COMMIT_TIMEOUT_S)

        error = await self._call(target, call, unanswered=UnknownOutcomeError)
        if isinstance(error, CorruptKvError):
            self._on_corrupt(target.worker, ways)
        self._answer_finish(handoff_id, error)

    def _answer_finish(self, handoff_id: str, error: BatonError | None) -> None:
        self._mailbox.post(partial(self.source.on_finished, handoff_id, error, self._clock.now_s()))

    async def _renew(self, target: WorkerEndpoint, handoff_ids: Sequence[str]) -> None:
        request = wire.renewal_to_proto(self._worker, target.worker, handoff_ids)

        async def call() -> tuple[str, ...]:
            answer = await self._peers.handoffs(target).RenewLeases(request, timeout=RENEW_TIMEOUT_S)
            return tuple(answer.lost_handoff_ids)

        lost = await self._call(target, call)
        if isinstance(lost, BatonError):
            logger.warning("%d leases at worker %s were not renewed: %s", len(handoff_ids), target.worker, lost)
        elif lost:
            self._mailbox.post(partial(self.source.on_leases_lost, lost))

    async def _abort(self, handoff_id: str, target: WorkerEndpoint) -> None:
        request = wire.abort_to_proto(handoff_id, self._worker, target.worker)

        async def call() -> None:
            await self._peers.handoffs(target).AbortHandoff(request, timeout=ABORT_TIMEOUT_S)

        for number, pause_s in enumerate(chain(ABORT_PAUSES_S, repeat(ABORT_PAUSES_S[-1])), start=1):
            await asyncio.sleep(pause_s)
            error = await self._call(target, call)
            if error is None or isinstance(error, PeerLostError):
                return
            if number == len(ABORT_PAUSES_S):
                tags = about({"request_id": request_id_of(handoff_id)})
                names = target.worker, handoff_id
                logger.warning("worker %s has not heard that handoff %s ended: %s", *names, error, extra=tags)

    async def _call(
        self,
        target: WorkerEndpoint,
        call: Callable[[], Awaitable[T]],
        unanswered: type[HandoffError] = HandoffError,
    ) -> T | BatonError:
        """Makes one call to a peer; what goes wrong comes back as a value, for it must reach the half.

        A cancellation that is not this task's own is a channel closed under the call, because a newer incarnation
        of the peer has come.

        Args:
            target: the peer.
            call: to be made.
            unanswered: the class of errors after which the peer may have done what it was called for.
        """
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            return error_of(target.worker, error, unanswered)
        except HandoffError as error:
            return error
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            return unanswered(f"worker {target.worker} was replaced by a newer incarnation during the call")
