"""This worker's connections to the workers it moves KV to or from: one gRPC channel and one transport each."""

import asyncio
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future as ConcurrentFuture
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from baton.v1 import handoff_pb2_grpc

from core.clock import Clock
from core.errors import HandoffError, PeerLostError
from core.ids import WorkerEndpoint, WorkerId
from kvtransfer.group_mover import GroupMover, PeerLink
from rpc.channels import open_channel
from rpc.security import OPEN, RpcSecurity
from worker import link_wire
from worker.exclusions import Exclusions
from worker.negotiation import Agreement, Introduction, names_of
from worker.rpc_errors import error_of

CONNECT_TIMEOUT_S = 10.0  # of each step; a live peer answers in milliseconds, a busy one within a step or two
BURIAL_S = 10.0  # a transport takes in what a dead peer has sent within a second or two
CONNECTING_S = 20.0  # of all steps, over however many transports; prompts wait meanwhile
# A link that was down is tried again soon after it is up; gRPC's own pauses grow to two minutes.
CHANNEL_OPTIONS = (("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 2000))

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Peer:
    """A connected peer.

    Attributes:
        endpoint: who and where.
        channel: closed by `Peers` when the peer is dead; outlives the connection.
        stub: its handoff service.
        links: its link service.
        transport: what this worker moves KV to and from it with.
        path: what carries the bytes, such as `cma`, `tcp` or `gloo`.
        renew_s: when a transport that is preferred to this one may be used again, on the clock; infinite for never.
    """

    endpoint: WorkerEndpoint
    channel: grpc.aio.Channel
    stub: handoff_pb2_grpc.HandoffServiceStub
    links: handoff_pb2_grpc.LinkServiceStub
    transport: str
    path: str
    renew_s: float


class Peers:
    """Connects to each peer incarnation on first use, and again when a link has failed. From the event loop only.

    What is said of handoffs goes over one channel per incarnation, whether or not there is a transport to it now:
    what was begun over a link that has failed must still be ended.

    Args:
        worker: this worker.
        fingerprint: of the model it serves; peers must have the same.
        mover: learns how to reach each rank of each peer; says what this worker has to offer.
        clock: for how long a transport that failed is not used.
        security: of the peers' servers.
    """

    def __init__(
        self, worker: WorkerId, fingerprint: str, mover: GroupMover, clock: Clock, security: RpcSecurity = OPEN
    ) -> None:
        self._worker = worker
        self._fingerprint = fingerprint
        self._mover = mover
        self._clock = clock
        self._security = security
        self._offers = mover.offers()
        self._exclusions = Exclusions()
        self._channels: dict[WorkerId, grpc.aio.Channel] = {}
        self._tasks: dict[WorkerId, asyncio.Task[Peer]] = {}
        self._connected: dict[WorkerId, Peer] = {}  # those of the tasks that have ended well
        self._endpoints: dict[WorkerId, WorkerEndpoint] = {}
        self._sources: set[WorkerId] = set()  # peers that start transfers with this worker
        self._first_alive: dict[str, int] = {}  # by name: incarnations below it are dead
        self._burials: dict[WorkerId, asyncio.Future[None]] = {}  # of the dead, while transports hold on to them
        self._lock = threading.Lock()  # no connection is let go of while something is ordered over it
        self._closing: set[asyncio.Task[None]] = set()

    async def get(self, endpoint: WorkerEndpoint) -> Peer:
        """The connection to a peer, made now if need be.

        Raises:
            HandoffError: it cannot be reached, is another incarnation, serves another model, has KV that cannot be
                reconciled, or no transport is left. The next call tries again. PeerLostError when it is dead.
        """
        worker = endpoint.worker
        self._check_alive(worker)
        if (peer := self.connected(worker)) is not None and self._clock.now_s() >= peer.renew_s:
            self.forget(worker)
        task = self._tasks.get(worker)
        if task is None:
            self._bury_before(worker.name, worker.incarnation)
            self._endpoints[worker] = endpoint
            self._channel(endpoint)
            task = self._tasks[worker] = asyncio.create_task(self._connect(endpoint))
        try:
            return await asyncio.shield(task)
        except HandoffError:
            if self._tasks.get(worker) is task:
                del self._tasks[worker]
            raise
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if caller is None or caller.cancelling() or not task.cancelled():
                raise
            raise PeerLostError(f"worker {worker} died while it was connected; the request is placed again") from None

    async def again(self, worker: WorkerId) -> Peer:
        """The connection to a peer that there has been one to before.

        Raises:
            HandoffError: as `get`, or the worker has never been connected.
        """
        self._check_alive(worker)
        if worker not in self._endpoints:
            raise HandoffError(f"worker {worker} has never been connected; the request is placed again")
        return await self.get(self._endpoints[worker])

    def handoffs(self, endpoint: WorkerEndpoint) -> handoff_pb2_grpc.HandoffServiceStub:
        """The handoff service of a peer, for words that need no transport.

        Raises:
            PeerLostError: the peer is dead.
        """
        self._check_alive(endpoint.worker)
        return handoff_pb2_grpc.HandoffServiceStub(self._channel(endpoint))

    def connected(self, worker: WorkerId) -> Peer | None:
        """The connection to a peer if there is one now. From any thread."""
        return self._connected.get(worker)

    @contextmanager
    def holding(self, worker: WorkerId) -> Iterator[Peer | None]:
        """The connection to a peer if there is one now; what is ordered meanwhile goes over it. From any thread."""
        with self._lock:
            yield self._connected.get(worker)

    def exclude(self, failed: Peer) -> None:
        """A move over a connection has failed: its transport is not used with the peer for a while."""
        worker = failed.endpoint.worker
        if self._is_dead(worker):
            return
        self._exclusions.exclude(worker, failed.transport, self._clock.now_s())
        if self.connected(worker) is failed:
            self.forget(worker)

    def ban(self, worker: WorkerId, transport: str) -> None:
        """Never again uses a transport with a peer, connected or not: it has brought other bytes than it got."""
        if self._is_dead(worker):
            return
        self._exclusions.ban(worker, transport)
        if (peer := self.connected(worker)) is not None and peer.transport == transport:
            self.forget(worker)

    def forget(self, worker: WorkerId) -> None:
        """Has the next handoff to a peer connect anew: the link has failed, though the peer may be well.

        Moves under way on the old connection may still end.
        """
        if self._drop(worker):  # else forgotten already, or being made anew
            del self._tasks[worker]
            self._mover.remove_peer(worker)

    async def expect(self, source: WorkerId, link: PeerLink) -> None:
        """Lets a source that has introduced itself reach this worker's KV. Its earlier incarnations are dead.

        Raises:
            HandoffError: a transport does not work with it. PeerLostError when it is dead: its message came late.
        """
        self._check_alive(source)
        self._bury_before(source.name, source.incarnation)
        self._sources.add(source)
        await self._add(source, link)

    def worker_gone(self, worker: WorkerId) -> None:
        """This incarnation of a worker is dead, and so are all earlier ones: calls and moves under way end as lost.

        Idempotent; also for workers never heard of.
        """
        self._bury_before(worker.name, worker.incarnation + 1)

    async def is_buried(self, worker: WorkerId) -> bool:
        """Waits until nothing of a dead worker, or of its earlier incarnations, can land here any more.

        Returns:
            False when a rank has not said so within some seconds.
        """
        burials = [burial for dead, burial in self._burials.items() if worker.outlasts(dead)]
        if burials:
            await asyncio.wait(burials, timeout=BURIAL_S)
        return not any(worker.outlasts(dead) for dead in self._burials)

    async def close(self) -> None:
        """Closes all channels."""
        for worker in list(self._channels):
            self._disconnect(worker)
        await asyncio.gather(*self._closing)

    # --- connecting

    async def _connect(self, endpoint: WorkerEndpoint) -> Peer:
        worker, channel = endpoint.worker, self._channel(endpoint)
        links = handoff_pb2_grpc.LinkServiceStub(channel)
        try:
            async with asyncio.timeout(CONNECTING_S):
                transport, path = await self._agree(worker, links)
        except TimeoutError as error:
            self._mover.remove_peer(worker)
            raise HandoffError(f"worker {worker} was not connected within {CONNECTING_S:g} s") from error
        except BaseException:  # when cancelled, too: nothing stays of a connection that was made in part
            self._mover.remove_peer(worker)
            raise
        logger.info("connected to worker %s at %s over %s (%s)", worker, endpoint.address, transport, path)
        stub = handoff_pb2_grpc.HandoffServiceStub(channel)
        peer = Peer(endpoint, channel, stub, links, transport, path, self._renew_s(worker, transport))
        self._connected[worker] = peer
        return peer

    async def _agree(self, worker: WorkerId, links: handoff_pb2_grpc.LinkServiceStub) -> tuple[str, str]:
        """Tries one transport after another until the ranks of both know each other; returns its name and path."""
        while True:
            agreed = await self._introduce(worker, links)
            link = PeerLink(agreed.transport, agreed.metadata, agreed.geometry, is_expected=False)
            try:
                path = await self._add(worker, link)
            except HandoffError as error:
                logger.warning("worker %s cannot be reached over %s: %s", worker, agreed.transport, error)
                self._exclusions.exclude(worker, agreed.transport, self._clock.now_s())
                if not self._allowed(worker):
                    raise
            else:
                if agreed.transport in self._allowed(worker):  # else it was banned meanwhile
                    return agreed.transport, path

    async def _introduce(self, worker: WorkerId, links: handoff_pb2_grpc.LinkServiceStub) -> Agreement:
        """Has the target choose one of the transports that may be used now."""
        allowed = self._allowed(worker)
        if not allowed:
            names = names_of(self._offers)
            raise HandoffError(f"no transport to worker {worker} is left: {names} failed a moment ago or for good")
        offers = {name: self._offers[name] for name in allowed}
        me = Introduction(self._worker, worker, self._fingerprint, self._mover.geometry, offers)
        try:
            answer = await links.ConnectPeer(link_wire.introduction_to_proto(me), timeout=CONNECT_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.FAILED_PRECONDITION:  # another process answers at its address
                raise PeerLostError(str(error.details())) from error
            raise error_of(worker, error) from error
        agreed = link_wire.agreement_from_proto(answer)
        if agreed.transport not in offers:
            raise HandoffError(f"worker {worker} chose transport {agreed.transport!r}, not one of {names_of(offers)}")
        return agreed

    async def _add(self, worker: WorkerId, link: PeerLink) -> str:
        """Has all ranks know a peer; returns what carries the bytes."""
        try:
            return await asyncio.wait_for(asyncio.wrap_future(self._mover.add_peer(worker, link)), CONNECT_TIMEOUT_S)
        except TimeoutError as error:
            message = f"{link.transport} did not connect to worker {worker} within {CONNECT_TIMEOUT_S:g} s"
            raise HandoffError(message) from error

    def _channel(self, endpoint: WorkerEndpoint) -> grpc.aio.Channel:
        channel = self._channels.get(endpoint.worker)
        if channel is None:
            channel = open_channel(endpoint.address, self._security, CHANNEL_OPTIONS)
            self._channels[endpoint.worker] = channel
        return channel

    def _allowed(self, worker: WorkerId) -> list[str]:
        return self._exclusions.allowed(worker, self._offers, self._clock.now_s())

    def _renew_s(self, worker: WorkerId, transport: str) -> float:
        """When a transport that is preferred to the one in use, and excluded now, may be used again."""
        names = list(self._offers)
        preferred, allowed = names[: names.index(transport)], self._allowed(worker)
        return self._exclusions.ends_s(worker, (name for name in preferred if name not in allowed))

    # --- the dead

    def _check_alive(self, worker: WorkerId) -> None:
        if self._is_dead(worker):
            raise PeerLostError(f"worker {worker} is dead; the request is placed again")

    def _is_dead(self, worker: WorkerId) -> bool:
        return worker.incarnation < self._first_alive.get(worker.name, 0)

    def _bury_before(self, name: str, incarnation: int) -> None:
        """Incarnations of a worker below this one are dead: forgets them."""
        self._first_alive[name] = max(incarnation, self._first_alive.get(name, 0))
        known = {*self._channels, *self._endpoints, *self._sources}
        for worker in [w for w in known if w.name == name and w.incarnation < incarnation]:
            self._bury(worker)

    def _bury(self, worker: WorkerId) -> None:
        self._disconnect(worker)
        self._keep_burial(worker, self._mover.remove_peer(worker, is_dead=True))
        self._exclusions.forget(worker)
        self._sources.discard(worker)
        self._endpoints.pop(worker, None)

    def _keep_burial(self, worker: WorkerId, removed: "ConcurrentFuture[None]") -> None:
        """Remembers a burial until it has ended well."""

        def end(ended: asyncio.Future[None]) -> None:
            if (error := ended.exception()) is None:
                del self._burials[worker]
            else:
                logger.error("dead worker %s cannot be let go of: %r", worker, error)

        burial = self._burials[worker] = asyncio.wrap_future(removed)
        burial.add_done_callback(end)

    def _disconnect(self, worker: WorkerId) -> None:
        """Ends a connection, made or in the making, and closes its channel: calls on it end as cancelled."""
        self._drop(worker)
        if (task := self._tasks.pop(worker, None)) is not None:
            task.cancel()
        if (channel := self._channels.pop(worker, None)) is not None:
            closing = asyncio.create_task(channel.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def _drop(self, worker: WorkerId) -> bool:
        """Has nothing more ordered over a connection; whether there was one."""
        with self._lock:
            return self._connected.pop(worker, None) is not None
