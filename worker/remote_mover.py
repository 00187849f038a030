"""The leader's hold on a follower: its orders to the follower's end of the transfer plane, and news of its death."""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future

import grpc
from baton.v1 import rank_pb2, rank_pb2_grpc

from core.errors import UnavailableError
from core.ids import WorkerId
from kvtransfer.move import OnMoved
from kvtransfer.packing import BlockPart
from kvtransfer.rank_mover import OnSummed, RankMove, RankPeer
from rpc.channels import open_channel
from rpc.security import OPEN, RpcSecurity
from worker import rank_wire, wire
from worker.rank_channel import CHANNEL_OPTIONS

HELLO_TIMEOUT_S = 10.0  # the follower listens before the leader knows its address
CLOSE_TIMEOUT_S = 2.0

logger = logging.getLogger(__name__)


class RemoteMover:
    """Implements `RankMover` for another process of the same worker, over one stream. `open` comes first.

    Args:
        name: of the rank, for people.
        address: `host:port` of its gRPC server.
        event_loop: where the stream lives.
        on_lost: called on the event loop when the stream ends before `close`: the rank is dead.
        security: of the rank's server.
    """

    def __init__(
        self,
        name: str,
        address: str,
        event_loop: asyncio.AbstractEventLoop,
        on_lost: Callable[[], None],
        security: RpcSecurity = OPEN,
    ) -> None:
        self._name = name
        self._address = address
        self._event_loop = event_loop
        self._on_lost = on_lost
        self._security = security
        self._offers: dict[str, bytes] = {}
        self._orders: asyncio.Queue[rank_pb2.LeadRequest] = asyncio.Queue()
        self._order_ids = itertools.count(1)
        self._adding: dict[int, Future[str]] = {}
        self._removing: dict[int, Future[None]] = {}
        self._moving: dict[int, OnMoved] = {}
        self._summing: dict[int, OnSummed] = {}
        self._is_closing = False
        self._stream: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Opens the stream; once, on the event loop.

        Raises:
            UnavailableError: the rank does not answer.
        """
        greeted: asyncio.Future[None] = self._event_loop.create_future()
        self._stream = asyncio.create_task(self._run(greeted))
        try:
            await asyncio.wait_for(greeted, HELLO_TIMEOUT_S)
        except TimeoutError as error:
            self._stream.cancel()
            raise UnavailableError(f"{self._name} did not answer its leader within {HELLO_TIMEOUT_S:g} s") from error

    def offers(self) -> Mapping[str, bytes]:
        """See `RankMover.offers`."""
        return self._offers

    def add_peer(self, peer: RankPeer) -> "Future[str]":
        """See `RankMover.add_peer`."""
        future: Future[str] = Future()
        order = rank_wire.peer_to_proto(next(self._order_ids), peer)
        self._adding[order.order_id] = future
        self._send(rank_pb2.LeadRequest(add_peer=order))
        return future

    def remove_peer(self, peer: WorkerId, *, is_dead: bool) -> "Future[None]":
        """See `RankMover.remove_peer`; the future is done on the event loop."""
        future: Future[None] = Future()
        future.set_running_or_notify_cancel()  # whoever gives up waiting must not hurt the stream
        order = rank_pb2.RemoveRankPeerOrder(
            order_id=next(self._order_ids), peer=wire.worker_id_to_proto(peer), is_dead=is_dead
        )
        self._removing[order.order_id] = future
        self._send(rank_pb2.LeadRequest(remove_peer=order))
        return future

    def move(self, move: RankMove, on_moved: OnMoved) -> None:
        """See `RankMover.move`; `on_moved` is called on the event loop."""
        order = rank_wire.move_to_proto(next(self._order_ids), move)
        self._moving[order.order_id] = on_moved
        self._send(rank_pb2.LeadRequest(move=order))

    def checksums(self, parts: Sequence[BlockPart], on_summed: OnSummed) -> None:
        """See `RankMover.checksums`; `on_summed` is called on the event loop."""
        order = rank_pb2.RankChecksumOrder(
            order_id=next(self._order_ids), parts=[rank_wire.part_to_proto(part) for part in parts]
        )
        self._summing[order.order_id] = on_summed
        self._send(rank_pb2.LeadRequest(checksum=order))

    def set_inbound(self, num_inbound: int) -> None:
        """See `RankMover.set_inbound`."""
        self._send(rank_pb2.LeadRequest(set_inbound=rank_pb2.SetInboundOrder(num_inbound=num_inbound)))

    def close(self) -> None:
        """Lets the follower go; waits a moment for it to hear so. Not from the event loop."""
        asyncio.run_coroutine_threadsafe(self._close(), self._event_loop).result()

    async def _close(self) -> None:
        if self._stream is None or self._stream.done():
            return
        self._is_closing = True
        self._orders.put_nowait(rank_pb2.LeadRequest(release=rank_pb2.ReleaseOrder()))
        await asyncio.wait([self._stream], timeout=CLOSE_TIMEOUT_S)
        self._stream.cancel()

    def _send(self, order: rank_pb2.LeadRequest) -> None:
        """Posts an order, from any thread; who hears of its end, if it is answered, has been noted before."""
        self._event_loop.call_soon_threadsafe(self._orders.put_nowait, order)

    async def _run(self, greeted: "asyncio.Future[None]") -> None:
        """Keeps the stream until it ends. Unless it was closed, nothing this worker does is worth anything then."""
        async with open_channel(self._address, self._security, CHANNEL_OPTIONS) as channel:
            call = rank_pb2_grpc.RankServiceStub(channel).Lead(self._order_stream(), wait_for_ready=True)
            try:
                async for answer in call:
                    self._take(answer, greeted)
            except grpc.aio.AioRpcError as error:
                logger.warning("%s at %s: %s: %s", self._name, self._address, error.code().name, error.details())
            finally:
                call.cancel()
        if not self._is_closing:
            logger.critical("%s is gone; its worker cannot go on without it", self._name)
            self._on_lost()

    def _take(self, answer: rank_pb2.LeadResponse, greeted: "asyncio.Future[None]") -> None:
        match answer.WhichOneof("message"):
            case "hello":
                self._offers = {offer.transport: offer.metadata for offer in answer.hello.offers}
                greeted.set_result(None)
            case "peer_added":
                self._end_adding(answer.peer_added)
            case "peer_removed":
                self._removing.pop(answer.peer_removed.order_id).set_result(None)
            case "move_ended":
                self._moving.pop(answer.move_ended.order_id)(rank_wire.outcome_from_proto(answer.move_ended))
            case "parts_summed":
                self._summing.pop(answer.parts_summed.order_id)(list(answer.parts_summed.values))

    def _end_adding(self, answer: rank_pb2.RankPeerAdded) -> None:
        future = self._adding.pop(answer.order_id)
        if not future.set_running_or_notify_cancel():
            return  # nobody waits for it any more
        if answer.HasField("error"):
            future.set_exception(rank_wire.error_from_proto(answer.error))
        else:
            future.set_result(answer.path)

    async def _order_stream(self) -> AsyncIterator[rank_pb2.LeadRequest]:
        while True:
            order = await self._orders.get()
            yield order
            if order.HasField("release"):
                return
