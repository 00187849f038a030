"""Asking a peer to read this worker's KV, where KV is pulled instead of pushed."""

import asyncio
import itertools
import logging
from collections.abc import Callable

import grpc

from core.errors import HandoffError, PeerLostError
from core.ids import WorkerEndpoint
from kvtransfer.move import Move, MoveOutcome
from worker import link_wire
from worker.inbound import InboundCount
from worker.peers import Peers
from worker.read_order import ReadAnswer, ReadOrder

READ_CALL_S = 30.0  # of one call; while its answer is out, another asks for the same read
RETRY_S = 1.0  # between two calls, while the peer is not reached
STEP_POLL_S = 0.001  # between two looks whether a step has ended, which takes tens of milliseconds

logger = logging.getLogger(__name__)


class PullClient:
    """The source's side of reads. Lives on the event loop.

    Args:
        me: this worker, and where targets reach it.
        peers: connections to targets.
        has_ended: whether an engine step, by number, writes nothing any more on any rank.
        inbound: counts a read from when it is asked for until it is known to have ended.
    """

    def __init__(
        self, me: WorkerEndpoint, peers: Peers, has_ended: Callable[[int], bool], inbound: InboundCount
    ) -> None:
        self._me = me
        self._peers = peers
        self._has_ended = has_ended
        self._inbound = inbound
        self._numbers = itertools.count(1)

    async def read(self, move: Move) -> ReadAnswer:
        """Has the peer of a WRITE read instead. Answers only when nothing of it is under way any more.

        A lost answer is asked for again, for as long as it takes: only the reader knows, unless it is dead.
        """
        await self._until_final(move)
        order = ReadOrder(
            read_id=str(next(self._numbers)),
            handoff_id=move.handoff_id,
            source=self._me,
            target=move.peer,
            source_ids=tuple(move.local_ids),
            target_ids=tuple(move.remote_ids),
            skip_tokens=move.skip_tokens,
        )
        try:
            await self._peers.again(move.peer)
        except HandoffError as error:  # it was not asked, so nothing is under way
            return ReadAnswer(MoveOutcome(error))
        with self._inbound.reading():
            while (answer := await self._ask(order)) is None:  # noqa: ASYNC110 - a pause between two calls
                await asyncio.sleep(RETRY_S)
        return answer

    async def _ask(self, order: ReadOrder) -> ReadAnswer | None:
        """One call; None when the read may still be under way."""
        try:
            peer = await self._peers.again(order.target)
            request = link_wire.read_order_to_proto(order)
            return link_wire.read_answer_from_proto(await peer.links.ReadBlocks(request, timeout=READ_CALL_S))
        except PeerLostError as error:
            return ReadAnswer(MoveOutcome(error))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.FAILED_PRECONDITION:  # another process answers at its address
                return ReadAnswer(MoveOutcome(PeerLostError(f"worker {order.target} is gone: {error.details()}")))
            logger.warning(
                "worker %s has not said how read %s ended: %s", order.target, order.read_id, error.details()
            )
        except HandoffError as error:
            logger.warning("worker %s cannot say how read %s ended: %s", order.target, order.read_id, error)
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            logger.info("the connection to worker %s was closed during read %s", order.target, order.read_id)
        return None

    async def _until_final(self, move: Move) -> None:
        step = move.final_after_step
        while step is not None and not self._has_ended(step):  # noqa: ASYNC110 - the engine's thread tells nobody
            await asyncio.sleep(STEP_POLL_S)
