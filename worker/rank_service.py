"""A follower's end of the stream from its leader: orders for its end of the transfer plane, and news of its death."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

import grpc
from baton.v1 import rank_pb2, rank_pb2_grpc

from core.errors import HandoffError
from kvtransfer.rank_mover import RankMover
from worker import wire

logger = logging.getLogger(__name__)


class RankService(rank_pb2_grpc.RankServiceServicer):
    """Serves `RankService`. Lives on the event loop.

    Args:
        mover: carries the orders out.
        on_lost: called on the event loop when the stream ends without a release: the leader is dead.
    """

    def __init__(self, mover: RankMover, on_lost: Callable[[], None]) -> None:
        self._mover = mover
        self._metadata = mover.metadata()
        self._on_lost = on_lost
        self._is_led = False
        self._is_released = False

    async def Lead(  # noqa: N802 - the name is the service's
        self,
        request_iterator: AsyncIterator[rank_pb2.LeadRequest],
        context: Any,  # noqa: ANN401 - grpc's
    ) -> AsyncIterator[rank_pb2.LeadResponse]:
        """The leader's stream; a second one is refused."""
        if self._is_led:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "this rank has a leader already")
        self._is_led = True
        answers: asyncio.Queue[rank_pb2.LeadResponse | None] = asyncio.Queue()
        reader = asyncio.create_task(self._read(request_iterator, answers))
        try:
            yield rank_pb2.LeadResponse(hello=rank_pb2.RankHello(transport_metadata=self._metadata))
            while (answer := await answers.get()) is not None:
                yield answer
        finally:
            reader.cancel()
            if not self._is_released:
                logger.critical("the leader is gone; this rank cannot go on without it")
                self._on_lost()

    async def _read(
        self, orders: AsyncIterator[rank_pb2.LeadRequest], answers: "asyncio.Queue[rank_pb2.LeadResponse | None]"
    ) -> None:
        """Carries orders out until the leader lets go or hangs up."""
        event_loop = asyncio.get_running_loop()

        def answer(order_id: int, error: HandoffError | None) -> None:
            ended = rank_pb2.OrderEnded(order_id=order_id, error=error.message if error else "")
            event_loop.call_soon_threadsafe(answers.put_nowait, rank_pb2.LeadResponse(ended=ended))

        try:
            async for order in orders:
                if order.HasField("release"):
                    self._is_released = True
                    return
                self._carry_out(order, answer)
        finally:
            answers.put_nowait(None)

    def _carry_out(self, order: rank_pb2.LeadRequest, answer: Callable[[int, HandoffError | None], None]) -> None:
        match order.WhichOneof("message"):
            case "add_peer":
                added = self._mover.add_peer(_peer(order.add_peer.peer), order.add_peer.metadata)
                added.add_done_callback(lambda future: answer(order.add_peer.order_id, _error_of(future)))
            case "remove_peer":
                self._mover.remove_peer(_peer(order.remove_peer.peer))
            case "write":
                write = order.write
                on_written = partial(answer, write.order_id)
                self._mover.write(_peer(write.peer), list(write.local_ids), list(write.remote_ids), on_written)
            case "expect_connection":
                self._mover.expect_connection()
            case "set_inbound":
                self._mover.set_inbound(order.set_inbound.num_inbound)


def _peer(message: Any) -> Any:  # noqa: ANN401 - a protobuf message
    return wire.worker_id_from_proto(message)


def _error_of(future: "Future[None]") -> HandoffError | None:
    error = future.exception()
    assert error is None or isinstance(error, HandoffError), f"the mover answered {error!r}"
    return error
