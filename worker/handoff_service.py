"""The receiving end of handoffs: peers ask for blocks, commit and abort here."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from baton.v1 import handoff_pb2, handoff_pb2_grpc

from core.errors import BatonError
from decode_worker.receiver import Receiver
from kvtransfer.move import Digest
from kvtransfer.port import CommitReply
from worker import wire
from worker.identity import WorkerIdentity
from worker.mailbox import Mailbox
from worker.rpc_errors import Context, abort

Verify = Callable[[Sequence[Digest]], "Future[bool]"]
"""Says whether what this worker's blocks hold has these checksums. Called on the event loop; does not hold it up."""


class HandoffService(handoff_pb2_grpc.HandoffServiceServicer):
    """Serves `HandoffService`. Lives on the event loop; reaches the receiver by the mailbox.

    Args:
        identity: orders for another incarnation are refused.
        mailbox: of the worker's loop.
        receiver: of the decode half; takes the handoffs.
        verify: checks blocks before the sequence runs.
    """

    def __init__(self, identity: WorkerIdentity, mailbox: Mailbox, receiver: Receiver, verify: Verify) -> None:
        self._identity = identity
        self._mailbox = mailbox
        self._receiver = receiver
        self._verify = verify

    async def BeginHandoff(  # noqa: N802 - the name is the service's
        self, request: handoff_pb2.BeginHandoffRequest, context: Context
    ) -> handoff_pb2.BeginHandoffResponse:
        """Answers when blocks are reserved; a call that is cancelled or times out withdraws the wish."""
        await self._check_target(request.target, context)
        source = wire.worker_id_from_proto(request.source)
        try:
            begin = partial(self._receiver.begin, request.handoff_id, source, request.num_tokens or None)
            answer = await self._mailbox.ask(begin)
        except asyncio.CancelledError:
            self._mailbox.post(partial(self._receiver.source_ended, request.handoff_id, source))
            raise
        if isinstance(answer, BatonError):
            await abort(context, answer)
        return wire.reservation_to_proto(answer)

    async def RenewLeases(  # noqa: N802 - the name is the service's
        self, request: handoff_pb2.RenewLeasesRequest, context: Context
    ) -> handoff_pb2.RenewLeasesResponse:
        """Keeps what is reserved for a source that lives."""
        await self._check_target(request.target, context)
        source = wire.worker_id_from_proto(request.source)
        lost = await self._mailbox.ask(partial(self._receiver.renew, source, tuple(request.handoff_ids)))
        return handoff_pb2.RenewLeasesResponse(lost_handoff_ids=lost)

    async def CommitHandoff(  # noqa: N802 - the name is the service's
        self, request: handoff_pb2.CommitHandoffRequest, context: Context
    ) -> handoff_pb2.CommitHandoffResponse:
        """Has the sequence run, unless its blocks hold something else than was sent.

        While they are checked the handoff stays as it is: renewed, cancelled or aborted as at any other time.
        """
        await self._check_target(request.target, context)
        handoff_id, source = request.handoff_id, wire.worker_id_from_proto(request.source)
        commit: Callable[[CommitReply], None]
        if await self._is_intact(request.digests):
            token_ids = tuple(request.tokens)
            commit = partial(self._receiver.commit, handoff_id, source, token_ids, request.num_blocks)
        else:
            commit = partial(self._receiver.reject, handoff_id, source)
        error: BatonError | None = await self._mailbox.ask(commit)
        if error is not None:
            await abort(context, error)
        return handoff_pb2.CommitHandoffResponse()

    async def AbortHandoff(  # noqa: N802 - the name is the service's
        self, request: handoff_pb2.AbortHandoffRequest, _context: Context
    ) -> handoff_pb2.AbortHandoffResponse:
        """Frees what was reserved. For another incarnation there is nothing to free."""
        if wire.worker_id_from_proto(request.target) == self._identity.endpoint.worker:
            source = wire.worker_id_from_proto(request.source)
            self._mailbox.post(partial(self._receiver.source_ended, request.handoff_id, source))
        return handoff_pb2.AbortHandoffResponse()

    async def _is_intact(self, digests: Iterable[handoff_pb2.KvDigest]) -> bool:
        """Whether the blocks hold what their source says it sent; true when it says nothing."""
        expected = [wire.digest_from_proto(digest) for digest in digests]
        return not expected or await asyncio.wrap_future(self._verify(expected))

    async def _check_target(self, target: Any, context: Context) -> None:  # noqa: ANN401 - a protobuf message
        try:
            self._identity.check_target(wire.worker_id_from_proto(target))
        except BatonError as error:
            await abort(context, error)
