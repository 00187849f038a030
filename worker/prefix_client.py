"""The importer's orders, carried to the peers that have prefixes."""

import asyncio
import logging
from functools import partial

import grpc
from baton.v1 import prefix_pb2_grpc

from core.errors import HandoffError
from core.ids import WorkerEndpoint
from kvtransfer.prefix_port import FetchEnd, PrefixFetch, PrefixTarget
from rpc.channels import open_channel
from rpc.security import OPEN, RpcSecurity
from worker import prefix_wire
from worker.handoff_service import Verify
from worker.mailbox import Mailbox
from worker.peers import Peers
from worker.task_set import TaskSet

END_TIMEOUT_S = 10.0

logger = logging.getLogger(__name__)


class GrpcPrefixPort:
    """Implements `PrefixPort`. Called on the worker's loop; talks on the event loop; answers by the mailbox.

    Args:
        endpoint: of this worker, where sources connect to.
        target: who hears the answers.
        peers: connections to sources, as for handoffs.
        mailbox: of the loop that owns the target.
        event_loop: where the gRPC calls run.
        verify: checks blocks before they are used.
        security: of the sources' servers.
    """

    def __init__(  # noqa: PLR0917 - collaborators, given once
        self,
        endpoint: WorkerEndpoint,
        target: PrefixTarget,
        peers: Peers,
        mailbox: Mailbox,
        event_loop: asyncio.AbstractEventLoop,
        verify: Verify,
        security: RpcSecurity = OPEN,
    ) -> None:
        self._endpoint = endpoint
        self._target = target
        self._peers = peers
        self._mailbox = mailbox
        self._event_loop = event_loop
        self._verify = verify
        self._security = security
        self._calls = TaskSet(event_loop)

    def fetch(self, fetch: PrefixFetch) -> None:
        """See `PrefixPort.fetch`."""
        self._calls.spawn(self._fetch(fetch))

    def end(self, fetch_id: str, source: WorkerEndpoint) -> None:
        """See `PrefixPort.end`."""
        self._calls.spawn(self._end(fetch_id, source))

    async def close(self) -> None:
        """Gives up all calls; the target is not told."""
        await self._calls.close()

    async def _fetch(self, fetch: PrefixFetch) -> None:
        """Until the source is connected nothing has been asked for, and a failure is an end; afterwards it is not."""
        deadline_s = self._event_loop.time() + fetch.timeout_s
        try:
            stub = await asyncio.wait_for(self._stub(fetch.source), fetch.timeout_s)
        except (HandoffError, TimeoutError, asyncio.CancelledError) as error:
            refusal = f"it was not connected within {fetch.timeout_s:.1f} s: {_reason(error)}"
            self._mailbox.post(partial(self._target.on_fetched, fetch.fetch_id, FetchEnd(0, refusal)))
            return
        request = prefix_wire.push_to_proto(fetch, self._endpoint)
        try:
            answer = await stub.PushPrefix(request, timeout=deadline_s - self._event_loop.time())
            end = await self._checked(fetch, prefix_wire.fetch_end_from_proto(answer))
        except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
            self._mailbox.post(partial(self._target.on_fetch_lost, fetch.fetch_id, _reason(error)))
        else:
            self._mailbox.post(partial(self._target.on_fetched, fetch.fetch_id, end))

    async def _checked(self, fetch: PrefixFetch, end: FetchEnd) -> FetchEnd:
        """The end as the source says it, unless the blocks hold something else than it has sent."""
        if not end.digests or await asyncio.wrap_future(self._verify(end.digests)):
            return end
        logger.error("prefix %s from worker %s is not what was sent", fetch.fetch_id, fetch.source.worker)
        self._calls.spawn(self._ask_end(fetch.fetch_id, fetch.source, is_corrupt=True))
        return FetchEnd(0, "what came is not what was sent")

    async def _end(self, fetch_id: str, source: WorkerEndpoint) -> None:
        is_over = await self._ask_end(fetch_id, source)
        self._mailbox.post(partial(self._target.on_ended, fetch_id, is_over=is_over))

    async def _ask_end(self, fetch_id: str, source: WorkerEndpoint, *, is_corrupt: bool = False) -> bool:
        """Whether the source has answered. Over a connection of its own: that of handoffs may be what has failed."""
        me = self._endpoint.worker
        request = prefix_wire.end_push_to_proto(fetch_id, source.worker, me, is_corrupt=is_corrupt)
        try:
            async with open_channel(source.address, self._security) as channel:
                await prefix_pb2_grpc.PrefixServiceStub(channel).EndPush(request, timeout=END_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            logger.info("worker %s does not say that fetch %s is over: %s", source.worker, fetch_id, _reason(error))
            return False
        return True

    async def _stub(self, source: WorkerEndpoint) -> prefix_pb2_grpc.PrefixServiceStub:
        """The source's service, over the connection that handoffs use.

        Raises:
            HandoffError: as `Peers.get`.
        """
        return prefix_pb2_grpc.PrefixServiceStub((await self._peers.get(source)).channel)


def _reason(error: BaseException) -> str:
    """What went wrong in a call.

    Raises:
        CancelledError: the task itself is to end. Otherwise it is the connection that was given up under the call.
    """
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    if isinstance(error, asyncio.CancelledError):
        if (task := asyncio.current_task()) is None or task.cancelling():
            raise error
        return "the connection was given up"
    return str(error) or "no answer"
