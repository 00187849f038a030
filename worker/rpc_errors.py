"""Our errors on the way through gRPC: a status for everybody, and the error's code for another worker."""

from typing import Any, NoReturn

import grpc

from core.errors import (
    BatonError,
    CorruptKvError,
    HandoffError,
    IncompatibleLayoutError,
    LostConnectionError,
    PeerLostError,
    StalledTransferError,
)
from core.ids import WorkerId

CODE_KEY = "baton-error"  # of the trailing metadata

HANDOFF_ERRORS: dict[str, type[HandoffError]] = {
    error.code: error
    for error in (IncompatibleLayoutError, LostConnectionError, PeerLostError, StalledTransferError, CorruptKvError)
}

Context = Any  # grpc.aio.ServicerContext, whose type parameters differ per method and are not used


async def abort(context: Context, error: BatonError) -> NoReturn:
    """Ends a call with the status that the error tree assigns."""
    status = getattr(grpc.StatusCode, error.grpc_status)
    await context.abort(status, error.message, trailing_metadata=((CODE_KEY, error.code),))
    raise AssertionError("abort raises")


def error_of(worker: WorkerId, failure: grpc.aio.AioRpcError) -> HandoffError:
    """What a call to a worker failed with: of the class it was there as far as that is a HandoffError."""
    metadata = failure.trailing_metadata()
    code = "" if metadata is None else str(metadata.get(CODE_KEY, ""))
    message = f"worker {worker} answered {failure.code().name}: {failure.details()}"
    return HANDOFF_ERRORS.get(code, HandoffError)(message)
