"""This worker's connections to the workers it hands KV to: one gRPC channel and one transport peer each."""

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import grpc
from baton.v1 import handoff_pb2, handoff_pb2_grpc

from core.errors import HandoffError
from core.ids import WorkerEndpoint, WorkerId
from engine.kv.layout import KvLayout
from engine.parallel.topology import ShardTopology
from kvtransfer.group_mover import GroupMover
from worker import wire

CONNECT_TIMEOUT_S = 10.0  # a live peer answers in milliseconds; a busy one within a step or two
CLOSE_GRACE_S = 90.0  # longer than any call of a handoff may take

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Peer:
    """A connected peer.

    Attributes:
        channel: closed by `Peers`.
        stub: its handoff service.
    """

    channel: grpc.aio.Channel
    stub: handoff_pb2_grpc.HandoffServiceStub


class Peers:
    """Connects to each peer incarnation once, on first use. Used from the event loop only.

    Args:
        worker: this worker.
        fingerprint: of the model it serves; peers must have the same.
        layout: of one rank's part of its KV blocks; peers must have the same.
        topology: how it is divided among ranks; peers must be divided alike.
        mover: learns how to write to each rank of each peer.
    """

    def __init__(
        self, worker: WorkerId, fingerprint: str, layout: KvLayout, topology: ShardTopology, mover: GroupMover
    ) -> None:
        self._worker = worker
        self._fingerprint = fingerprint
        self._layout = layout
        self._topology = topology
        self._mover = mover
        self._peers: dict[WorkerId, asyncio.Task[Peer]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def get(self, endpoint: WorkerEndpoint) -> Peer:
        """The connection to a peer, made now if need be.

        Raises:
            HandoffError: it cannot be reached, is another incarnation, or serves another model or layout. The next
                call tries again.
        """
        task = self._peers.get(endpoint.worker)
        if task is None:
            superseded = self._forget_superseded(endpoint.worker)
            task = asyncio.create_task(self._connect(endpoint, superseded))
            self._peers[endpoint.worker] = task
        try:
            return await asyncio.shield(task)
        except HandoffError:
            if self._peers.get(endpoint.worker) is task:
                del self._peers[endpoint.worker]
            raise

    def forget(self, worker: WorkerId) -> None:
        """Has the next handoff to a peer connect anew: the link has failed, though the peer may be well.

        Calls under way on the old connection may still end.
        """
        task = self._peers.get(worker)
        if task is None or not task.done():
            return  # forgotten already, or being made anew
        del self._peers[worker]
        self._mover.remove_peer(worker)
        if not task.cancelled() and task.exception() is None:
            self._close_soon(task.result().channel.close(grace=CLOSE_GRACE_S))

    def worker_gone(self, worker: WorkerId) -> None:
        """A process is dead, and every earlier one of its name: calls on their connections end at once."""
        gone = [peer for peer in self._peers if peer.dies_with(worker)]
        for peer in gone:
            self._mover.remove_peer(peer)
        if gone:
            self._close_soon(_close_channels([self._peers.pop(peer) for peer in gone]))

    async def close(self) -> None:
        """Closes all channels."""
        for closing in self._closing:
            closing.cancel()
        tasks = list(self._peers.values())
        self._peers.clear()
        await _close_channels(tasks)

    async def _connect(self, endpoint: WorkerEndpoint, superseded: "list[asyncio.Task[Peer]]") -> Peer:
        await _close_channels(superseded)
        channel = grpc.aio.insecure_channel(endpoint.address)
        stub = handoff_pb2_grpc.HandoffServiceStub(channel)
        try:
            await self._introduce(endpoint, stub)
        except BaseException:  # when cancelled, too: nothing stays of a connection that was made in part
            self._mover.remove_peer(endpoint.worker)
            await channel.close()
            raise
        logger.info("connected to worker %s at %s", endpoint.worker, endpoint.address)
        return Peer(channel, stub)

    async def _introduce(self, endpoint: WorkerEndpoint, stub: handoff_pb2_grpc.HandoffServiceStub) -> None:
        """Has all ranks of both workers know each other."""
        request = handoff_pb2.ConnectPeerRequest(
            source=wire.worker_id_to_proto(self._worker),
            target=wire.worker_id_to_proto(endpoint.worker),
            model_fingerprint=self._fingerprint,
            layout=wire.layout_to_proto(self._layout),
            topology=wire.topology_to_proto(self._topology),
        )
        try:
            answer = await stub.ConnectPeer(request, timeout=CONNECT_TIMEOUT_S)
            added = self._mover.add_peer(endpoint.worker, answer.transport_metadata, answer.num_blocks)
            await asyncio.wait_for(asyncio.wrap_future(added), CONNECT_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise HandoffError(f"worker {endpoint.worker} did not connect: {error.details()}") from error
        except TimeoutError as error:
            message = f"the transport did not connect to worker {endpoint.worker} within {CONNECT_TIMEOUT_S:g} s"
            raise HandoffError(message) from error

    def _close_soon(self, closing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(closing)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _forget_superseded(self, worker: WorkerId) -> "list[asyncio.Task[Peer]]":
        """Forgets earlier incarnations of a worker; returns their connections, which are to be closed."""
        gone = [old for old in self._peers if worker.supersedes(old)]
        for old in gone:
            self._mover.remove_peer(old)
        return [self._peers.pop(old) for old in gone]


async def _close_channels(tasks: "list[asyncio.Task[Peer]]") -> None:
    """Ends connections, made or in the making; calls on them end as cancelled."""
    for task in tasks:
        task.cancel()
    for peer in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(peer, Peer):
            await peer.channel.close()
