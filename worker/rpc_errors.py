"""Our errors on the way through gRPC: a status for everybody, and the error's code for another worker."""

import grpc

from core.errors import ERROR_CODE_KEY, HANDOFF_ERRORS, HandoffError
from core.ids import WorkerId
from rpc.abort import Context, abort

__all__ = ["Context", "abort", "code_of", "error_of"]


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
