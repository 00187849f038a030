"""Running something around the methods of gRPC services, for interceptors."""

import contextlib
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from rpc.abort import Context

Handler = Any  # grpc.RpcMethodHandler or None, whose types are those of the synchronous server
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler]]
Method = Callable[[Any, Context], Awaitable[Any]]
"""A method that returns its answer, or writes its answers."""


def wrapped(handler: Handler, around: Callable[[Method], Method], deserializer: Callable[[bytes], Any]) -> Handler:
    """A handler whose method is `around` that of another one, and whose requests the deserializer makes.

    A method with a stream of requests gets the stream in place of the request.
    """
    asked, answered = (
        "stream" if each else "unary" for each in (handler.request_streaming, handler.response_streaming)
    )
    method = getattr(handler, f"{asked}_{answered}")
    make = getattr(grpc, f"{asked}_{answered}_rpc_method_handler")
    behaviour = _as_writer(method) if handler.response_streaming else method
    return make(around(behaviour), deserializer, handler.response_serializer)


def _as_writer(method: Callable[..., Any]) -> Method:
    """A method with a stream of answers as one that writes them, if it is one that yields them."""
    if not inspect.isasyncgenfunction(method):
        return method

    async def write(request: Any, context: Context) -> None:  # noqa: ANN401 - any message
        async with contextlib.aclosing(method(request, context)) as answers:
            async for answer in answers:
                await context.write(answer)

    return write
