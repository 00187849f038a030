"""How a gRPC call ends with an error of ours, and what our error was when it has ended."""

import math
from typing import Any, NoReturn

import grpc

from core.errors import ERROR_CODE_KEY, RETRY_AFTER_KEY, BatonError

Context = Any  # grpc.aio.ServicerContext, whose type parameters differ per method and are not used


async def abort(context: Context, error: BatonError) -> NoReturn:
    """Ends a call with the status that the error tree assigns, the error's code, and when to try again."""
    status = getattr(grpc.StatusCode, error.grpc_status)
    metadata = [(ERROR_CODE_KEY, error.code)]
    if error.retry_after_s is not None:
        metadata.append((RETRY_AFTER_KEY, str(math.ceil(error.retry_after_s))))
    await context.abort(status, error.message, trailing_metadata=tuple(metadata))
    raise AssertionError("abort raises")
