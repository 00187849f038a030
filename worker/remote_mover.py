"""The leader's hold on a follower: its orders to the follower's end of the transfer plane, and news of its death."""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future

import grpc
from baton.v1 import rank_pb2, rank_pb2_grpc

from core.errors import HandoffError, UnavailableError
from core.ids import WorkerId
from kvtransfer.rank_mover import OnWritten
from worker import wire
from worker.rank_channel import CHANNEL_OPTIONS

HELLO_TIMEOUT_S = 10.0  # the follower listens before the leader knows its address
CLOSE_TIMEOUT_S = 2.0

logger = logging.getLogger(__name__)


class RemoteMover:
    """Implements `RankMover` for another process of the same worker, over one stream. Made by `open_remote_mover`.

    Args:
        name: of the rank, for people.
        address: `host:port` of its gRPC server.
        event_loop: where the stream lives.
        on_lost: called on the event loop when the stream ends before `close`: the rank is dead.
    """

    def __init__(
        self, name: str, address: str, event_loop: asyncio.AbstractEventLoop, on_lost: Callable[[], None]
    ) -> None:
        self._name = name
        self._address = address
        self._event_loop = event_loop
        self._on_lost = on_lost
        self._metadata = b""
        self._orders: asyncio.Queue[rank_pb2.LeadRequest] = asyncio.Queue()
        self._order_ids = itertools.count(1)
        self._open: dict[int, OnWritten] = {}
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

    def metadata(self) -> bytes:
        """See `RankMover.metadata`."""
        return self._metadata

    def add_peer(self, peer: WorkerId, metadata: bytes) -> "Future[None]":
        """See `RankMover.add_peer`."""
        future: Future[None] = Future()

        def on_ended(error: HandoffError | None) -> None:
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        order = rank_pb2.AddPeerOrder(
            order_id=next(self._order_ids), peer=wire.worker_id_to_proto(peer), metadata=metadata
        )
        self._send(rank_pb2.LeadRequest(add_peer=order), order.order_id, on_ended)
        return future

    def remove_peer(self, peer: WorkerId) -> None:
        """See `RankMover.remove_peer`."""
        order = rank_pb2.RemovePeerOrder(peer=wire.worker_id_to_proto(peer))
        self._send(rank_pb2.LeadRequest(remove_peer=order))

    def write(
        self, peer: WorkerId, local_ids: Sequence[int], remote_ids: Sequence[int], on_written: OnWritten
    ) -> None:
        """See `RankMover.write`; `on_written` is called on the event loop."""
        order = rank_pb2.WriteOrder(
            order_id=next(self._order_ids),
            peer=wire.worker_id_to_proto(peer),
            local_ids=local_ids,
            remote_ids=remote_ids,
        )
        self._send(rank_pb2.LeadRequest(write=order), order.order_id, on_written)

    def expect_connection(self) -> None:
        """See `RankMover.expect_connection`."""
        self._send(rank_pb2.LeadRequest(expect_connection=rank_pb2.ExpectConnectionOrder()))

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

    def _send(self, order: rank_pb2.LeadRequest, order_id: int = 0, on_ended: OnWritten | None = None) -> None:
        """Posts an order, and who hears of its end if it is answered. From any thread."""

        def post() -> None:
            if on_ended is not None:
                self._open[order_id] = on_ended
            self._orders.put_nowait(order)

        self._event_loop.call_soon_threadsafe(post)

    async def _run(self, greeted: "asyncio.Future[None]") -> None:
        """Keeps the stream until it ends. Unless it was closed, nothing this worker does is worth anything then."""
        async with grpc.aio.insecure_channel(self._address, options=CHANNEL_OPTIONS) as channel:
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
        if answer.HasField("hello"):
            self._metadata = answer.hello.transport_metadata
            greeted.set_result(None)
        else:
            error = HandoffError(answer.ended.error) if answer.ended.error else None
            self._open.pop(answer.ended.order_id)(error)

    async def _order_stream(self) -> AsyncIterator[rank_pb2.LeadRequest]:
        while True:
            order = await self._orders.get()
            yield order
            if order.HasField("release"):
                return
