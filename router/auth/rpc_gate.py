"""The gate in front of the public gRPC services: generating is for clients, everything else for operators."""

from typing import Any

import grpc

from core.errors import BatonError
from router.auth.caller import acting_for
from router.auth.gate import Gate, Need
from router.rpc.context import Context, abort
from rpc.wrapping import Continuation, Handler, Method, wrapped

CHAT_SERVICE = "/baton.v1.GenerateService/"
METADATA_KEY = "authorization"


def need_of(method: str) -> Need:
    """What a call of a method, as `/package.Service/Method`, needs."""
    return Need.CHAT if method.startswith(CHAT_SERVICE) else Need.OPERATOR


class RpcGate(grpc.aio.ServerInterceptor):
    """Has methods called for callers only that may; `current_caller` says there who calls.

    Others are refused before anything reads their message.

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
            return self._refusing(handler, method, error)

        def on_behalf(behaviour: Method) -> Method:
            async def act(request: Any, context: Context) -> Any:  # noqa: ANN401 - any message
                with acting_for(caller):
                    return await behaviour(request, context)

            return act

        return wrapped(handler, on_behalf, handler.request_deserializer)

    def _refusing(self, handler: Handler, method: str, error: BatonError) -> Handler:
        async def refuse(_request: bytes, context: Context) -> None:
            self._gate.note_refusal(error, peer=context.peer(), what=method)
            await abort(context, error)

        return wrapped(handler, lambda _: refuse, bytes)


def _authorization(details: grpc.HandlerCallDetails) -> str | None:
    """What the call shows; nothing, if it shows two."""
    shown = [value for key, value in details.invocation_metadata or () if key == METADATA_KEY]
    return str(shown[0]) if len(shown) == 1 else None
