"""The receiving end of handoffs: peers ask for blocks, commit and abort here."""

import asyncio
from functools import partial
from typing import Any, NoReturn

import grpc
from baton.v1 import handoff_pb2, handoff_pb2_grpc

from core.errors import BatonError
from decode_worker.half import DecodeHalf
from kvtransfer.group_mover import GroupMover
from worker import wire
from worker.asking import ask
from worker.identity import WorkerIdentity
from worker.mailbox import Mailbox

Context = Any  # grpc.aio.ServicerContext, whose type parameters differ per method and are not used


class HandoffService(handoff_pb2_grpc.HandoffServiceServicer):
    """Serves `HandoffService`. Lives on the event loop; reaches the decode half by the mailbox.

    Args:
        identity: orders for another incarnation are refused.
        mailbox: of the worker's loop.
        decode: takes the handoffs.
        mover: tells peers how to write here, to every rank.
    """

    def __init__(self, identity: WorkerIdentity, mailbox: Mailbox, decode: DecodeHalf, mover: GroupMover) -> None:
        self._identity = identity
        self._mailbox = mailbox
        self._decode = decode
        self._mover = mover
        self._metadata = mover.metadata()

    async def ConnectPeer(  # noqa: N802 - the name is the service's
        self, request: handoff_pb2.ConnectPeerRequest, context: Context
    ) -> handoff_pb2.ConnectPeerResponse:
        """Checks that KV can be shared, then tells the peer how to write here."""
        source = wire.worker_id_from_proto(request.source)
        layout = wire.layout_from_proto(request.layout)
        try:
            self._identity.check_target(wire.worker_id_from_proto(request.target))
            topology = wire.topology_from_proto(request.topology)
            self._identity.check_compatible(source, request.model_fingerprint, layout, topology)
        except BatonError as error:
            await abort(context, error)
        self._mailbox.post(partial(self._decode.worker_superseded, source))
        self._mover.expect_connection()
        return handoff_pb2.ConnectPeerResponse(
            transport_metadata=self._metadata, num_blocks=self._identity.num_blocks
        )

    async def BeginHandoff(  # noqa: N802 - the name is the service's
        self, request: handoff_pb2.BeginHandoffRequest, context: Context
    ) -> handoff_pb2.BeginHandoffResponse:
        """Answers when blocks are reserved; a call that is cancelled or times out withdraws the wish."""
        await self._check_target(request.target, context)
        source = wire.worker_id_from_proto(request.source)
        try:
            answer = await ask(self._mailbox, partial(self._decode.begin, request.handoff_id, source))
        except asyncio.CancelledError:
            self._mailbox.post(partial(self._decode.source_ended, request.handoff_id))
            raise
        if isinstance(answer, BatonError):
            await abort(context, answer)
        return wire.reservation_to_proto(answer)

    async def CommitHandoff(  # noqa: N802 - the name is the service's
        self, request: handoff_pb2.CommitHandoffRequest, context: Context
    ) -> handoff_pb2.CommitHandoffResponse:
        """Has the sequence run."""
        await self._check_target(request.target, context)
        commit = partial(self._decode.commit, request.handoff_id, request.first_token, request.num_blocks)
        error: BatonError | None = await ask(self._mailbox, commit)
        if error is not None:
            await abort(context, error)
        return handoff_pb2.CommitHandoffResponse()

    async def AbortHandoff(  # noqa: N802 - the name is the service's
        self, request: handoff_pb2.AbortHandoffRequest, _context: Context
    ) -> handoff_pb2.AbortHandoffResponse:
        """Frees what was reserved. For another incarnation there is nothing to free."""
        if wire.worker_id_from_proto(request.target) == self._identity.endpoint.worker:
            self._mailbox.post(partial(self._decode.source_ended, request.handoff_id))
        return handoff_pb2.AbortHandoffResponse()

    async def _check_target(self, target: Any, context: Context) -> None:  # noqa: ANN401 - a protobuf message
        try:
            self._identity.check_target(wire.worker_id_from_proto(target))
        except BatonError as error:
            await abort(context, error)


async def abort(context: Context, error: BatonError) -> NoReturn:
    """Ends a call with the status that the error tree assigns."""
    await context.abort(getattr(grpc.StatusCode, error.grpc_status), error.message)
    raise AssertionError("abort raises")
