"""How a gRPC call ends with an error of ours, and what our error was when it has ended."""

from typing import Any, NoReturn

import grpc

from core.errors import ERROR_CODE_KEY, BatonError

Context = Any  # grpc.aio.ServicerContext, whose type parameters differ per method and are not used


async def abort(context: Context, error: BatonError) -> NoReturn:
    """Ends a call with the status that the error tree assigns, and with the error's code."""
    status = getattr(grpc.StatusCode, error.grpc_status)
    await context.abort(status, error.message, trailing_metadata=((ERROR_CODE_KEY, error.code),))
    raise AssertionError("abort raises")
