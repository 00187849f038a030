"""The gate in front of the public gRPC services. Methods that read are told by their verb; all others are orders."""

import contextlib
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from core.errors import BatonError
from router.auth.caller import Caller, acting_for
from router.auth.gate import Gate, Need
from router.rpc.context import Context, abort

CHAT_SERVICE = "/baton.v1.GenerateService/"
METADATA_KEY = "authorization"

Handler = Any  # grpc.RpcMethodHandler or None, whose types are those of the synchronous server
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler]]


def need_of(method: str) -> Need:
    """What a call of a method, as `/package.Service/Method`, needs."""
    return Need.CHAT if method.startswith(CHAT_SERVICE) else Need.OPERATOR


class RpcGate(grpc.aio.ServerInterceptor):
    """Has methods called for callers only that may; `current_caller` says there who calls.

    Others are refused before a byte of their message is read.

    Args:
        gate: decides.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        """The method's handler on behalf of the caller; None where there is no such method."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        try:
            caller = self._gate.admit(need_of(method), _authorization(handler_call_details))
        except BatonError as error:
            return self._refusing(method, error)
        return _acting_for(caller, handler)

    def _refusing(self, method: str, error: BatonError) -> Handler:
        async def refuse(_requests: Any, context: Context) -> None:  # noqa: ANN401 - never read
            self._gate.note_refusal(error, peer=context.peer(), what=method)
            await abort(context, error)

        return grpc.stream_stream_rpc_method_handler(refuse)


def _acting_for(caller: Caller, handler: Handler) -> Handler:
    assert not handler.request_streaming, "no public service has a stream of requests"
    behaviour = handler.unary_stream or handler.unary_unary
    make = grpc.unary_unary_rpc_method_handler
    if handler.response_streaming:
        make, behaviour = grpc.unary_stream_rpc_method_handler, _as_writer(behaviour)

    async def act(request: Any, context: Context) -> Any:  # noqa: ANN401 - any message
        with acting_for(caller):
            return await behaviour(request, context)

    return make(act, handler.request_deserializer, handler.response_serializer)


def _as_writer(behaviour: Callable[..., Any]) -> Callable[..., Awaitable[None]]:
    """A method with a stream of answers as one that writes them, if it is one that yields them."""
    if not inspect.isasyncgenfunction(behaviour):
        return behaviour

    async def write(request: Any, context: Context) -> None:  # noqa: ANN401 - any message
        async with contextlib.aclosing(behaviour(request, context)) as answers:
            async for answer in answers:
                await context.write(answer)

    return write


def _authorization(details: grpc.HandlerCallDetails) -> str | None:
    """What the call shows; nothing, if it shows two."""
    shown = [value for key, value in details.invocation_metadata or () if key == METADATA_KEY]
    return str(shown[0]) if len(shown) == 1 else None
