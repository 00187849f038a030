"""A follower's end of the stream from its leader: orders for its end of the transfer plane, and news of its death."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

import grpc
from baton.v1 import rank_pb2, rank_pb2_grpc

from core.errors import HandoffError
from kvtransfer.move import MoveOutcome
from kvtransfer.rank_mover import RankMover
from worker import rank_wire, wire

Answer = Callable[[rank_pb2.LeadResponse], None]
"""Sends an answer to the leader, from any thread."""

logger = logging.getLogger(__name__)


class RankService(rank_pb2_grpc.RankServiceServicer):
    """Serves `RankService`. Lives on the event loop.

    Args:
        mover: carries the orders out.
        on_lost: called on the event loop when the stream ends without a release: the leader is dead.
    """

    def __init__(self, mover: RankMover, on_lost: Callable[[], None]) -> None:
        self._mover = mover
        self._offers = mover.offers()
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
            yield rank_pb2.LeadResponse(hello=self._hello())
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

        def answer(response: rank_pb2.LeadResponse) -> None:
            event_loop.call_soon_threadsafe(answers.put_nowait, response)

        try:
            async for order in orders:
                if order.HasField("release"):
                    self._is_released = True
                    return
                self._carry_out(order, answer)
        finally:
            answers.put_nowait(None)

    def _carry_out(self, order: rank_pb2.LeadRequest, answer: Answer) -> None:
        match order.WhichOneof("message"):
            case "add_peer":
                added = self._mover.add_peer(rank_wire.peer_from_proto(order.add_peer))
                added.add_done_callback(lambda future: answer(_peer_added(order.add_peer.order_id, future)))
            case "remove_peer":
                peer = wire.worker_id_from_proto(order.remove_peer.peer)
                removed = self._mover.remove_peer(peer, is_dead=order.remove_peer.is_dead)
                removed.add_done_callback(lambda _: answer(_peer_removed(order.remove_peer.order_id)))
            case "move":
                on_moved = partial(_answer_move, answer, order.move.order_id)
                self._mover.move(rank_wire.move_from_proto(order.move), on_moved)
            case "checksum":
                parts = [rank_wire.part_from_proto(part) for part in order.checksum.parts]
                self._mover.checksums(parts, partial(_answer_sums, answer, order.checksum.order_id))
            case "set_inbound":
                self._mover.set_inbound(order.set_inbound.num_inbound)

    def _hello(self) -> rank_pb2.RankHello:
        offers = [rank_pb2.RankOffer(transport=name, metadata=data) for name, data in self._offers.items()]
        return rank_pb2.RankHello(offers=offers)


def _answer_move(answer: Answer, order_id: int, outcome: MoveOutcome) -> None:
    answer(rank_pb2.LeadResponse(move_ended=rank_wire.outcome_to_proto(order_id, outcome)))


def _answer_sums(answer: Answer, order_id: int, values: Sequence[int]) -> None:
    answer(rank_pb2.LeadResponse(parts_summed=rank_pb2.RankPartsSummed(order_id=order_id, values=values)))


def _peer_removed(order_id: int) -> rank_pb2.LeadResponse:
    return rank_pb2.LeadResponse(peer_removed=rank_pb2.RankPeerRemoved(order_id=order_id))


def _peer_added(order_id: int, added: "Future[str]") -> rank_pb2.LeadResponse:
    error = added.exception()
    assert error is None or isinstance(error, HandoffError), f"the mover answered {error!r}"
    answer = rank_pb2.RankPeerAdded(
        order_id=order_id,
        path="" if error else added.result(),
        error=rank_wire.error_to_proto(error) if error else None,
    )
    return rank_pb2.LeadResponse(peer_added=answer)
