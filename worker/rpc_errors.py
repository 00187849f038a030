"""Our errors on the way through gRPC: a status for everybody, and the error's code for another worker."""

from typing import Any, NoReturn

import grpc

from core.errors import ERROR_CODE_KEY, HANDOFF_ERRORS, BatonError, HandoffError
from core.ids import WorkerId

Context = Any  # grpc.aio.ServicerContext, whose type parameters differ per method and are not used


async def abort(context: Context, error: BatonError) -> NoReturn:
    """Ends a call with the status that the error tree assigns."""
    status = getattr(grpc.StatusCode, error.grpc_status)
    await context.abort(status, error.message, trailing_metadata=((ERROR_CODE_KEY, error.code),))
    raise AssertionError("abort raises")


def code_of(failure: grpc.aio.AioRpcError) -> str:
    """The code of the error that a call failed with there; empty when it failed on the way."""
    metadata = failure.trailing_metadata()
    return "" if metadata is None else str(metadata.get(ERROR_CODE_KEY, ""))


def error_of(
    worker: WorkerId, failure: grpc.aio.AioRpcError, unanswered: type[HandoffError] = HandoffError
) -> HandoffError:
    """What a call to a worker failed with.

    Args:
        worker: who was called.
        failure: of the class it was there, as far as that is a HandoffError.
        unanswered: the class of what failed on the way.
    """
    code = code_of(failure)
    kind = HANDOFF_ERRORS.get(code, HandoffError) if code else unanswered
    return kind(f"worker {worker} answered {failure.code().name}: {failure.details()}")
