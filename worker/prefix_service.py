"""The giving end of prefix fetches: peers ask here for blocks that this worker has."""

import asyncio
from functools import partial

from baton.v1 import prefix_pb2, prefix_pb2_grpc

from core.errors import BatonError, HandoffError, StaleEpochError, StalledTransferError
from core.ids import WorkerEndpoint
from kvtransfer.prefix_port import FetchEnd
from worker import prefix_wire, wire
from worker.identity import WorkerIdentity
from worker.mailbox import Mailbox
from worker.peers import Peers
from worker.prefix_exporter import PrefixExporter, PushOrder
from worker.rpc_errors import Context, abort
from worker.ways import OnCorrupt

MAX_PUSH_S = 60.0  # targets wait for less, see `prefill_worker.prefix_importer`


class PrefixService(prefix_pb2_grpc.PrefixServiceServicer):
    """Serves `PrefixService`. Lives on the event loop; reaches the exporter by the mailbox.

    Args:
        identity: orders for another incarnation are refused.
        peers: connections to targets, as for handoffs.
        mailbox: of the worker's loop.
        exporter: writes the blocks.
        on_corrupt: hears which targets found blocks that are not what was sent, and how they went there.
    """

    def __init__(
        self,
        identity: WorkerIdentity,
        peers: Peers,
        mailbox: Mailbox,
        exporter: PrefixExporter,
        on_corrupt: OnCorrupt,
    ) -> None:
        self._identity = identity
        self._peers = peers
        self._mailbox = mailbox
        self._exporter = exporter
        self._on_corrupt = on_corrupt

    async def PushPrefix(  # noqa: N802 - the name is the service's
        self, request: prefix_pb2.PushPrefixRequest, context: Context
    ) -> prefix_pb2.PushPrefixResponse:
        """Answers when nothing is under way any more; a call that is cancelled or times out says nothing."""
        try:
            self._identity.check_target(wire.worker_id_from_proto(request.source))
            order, target = prefix_wire.push_from_proto(request)
            async with asyncio.timeout(MAX_PUSH_S):
                return prefix_wire.fetch_end_to_proto(await self._push(order, target))
        except TimeoutError:
            await abort(
                context, StalledTransferError(f"writing prefix {request.fetch_id} took over {MAX_PUSH_S:g} s")
            )
        except BatonError as error:
            await abort(context, error)

    async def EndPush(  # noqa: N802 - the name is the service's
        self, request: prefix_pb2.EndPushRequest, context: Context
    ) -> prefix_pb2.EndPushResponse:
        """Answers when nothing of the fetch is under way. What a dead incarnation was to write never will be."""
        source, me = wire.worker_id_from_proto(request.source), self._identity.endpoint.worker
        if source == me:
            target = wire.worker_id_from_proto(request.target)
            way = await self._mailbox.ask(partial(self._exporter.end, target, request.fetch_id))
            if request.is_corrupt and way is not None:
                self._on_corrupt(target, [way])
        elif not me.supersedes(source):
            await abort(context, StaleEpochError(f"this is worker {me}, which knows nothing of worker {source}"))
        return prefix_pb2.EndPushResponse()

    async def _push(self, order: PushOrder, target: WorkerEndpoint) -> FetchEnd:
        try:
            await self._peers.get(target)
        except HandoffError as error:
            return FetchEnd(0, error.message)
        try:
            return await self._mailbox.ask(partial(self._exporter.push, order))
        except asyncio.CancelledError:
            self._mailbox.post(partial(self._exporter.abandon, order.target, order.fetch_id))
            raise
