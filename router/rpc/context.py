"""What all gRPC services of the router share: the context's type, and how a call ends with an error."""

from typing import Any, NoReturn

import grpc

from core.errors import ERROR_CODE_KEY, BatonError
from router.observe.call import note_refusal

Context = Any  # grpc.aio.ServicerContext, whose type parameters differ per method and are not used


async def abort(context: Context, error: BatonError) -> NoReturn:
    """Ends a call with the status that the error tree assigns, and with the error's code."""
    note_refusal(error)
    status = getattr(grpc.StatusCode, error.grpc_status)
    await context.abort(status, error.message, trailing_metadata=((ERROR_CODE_KEY, error.code),))
    raise AssertionError("abort raises")
