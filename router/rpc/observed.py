"""Watches the calls of the gRPC API that ask for an answer, those that are refused included."""

from typing import Any

import grpc

from router.observe.call import Calls
from router.rpc.context import Context
from rpc.wrapping import Continuation, Handler, Method, wrapped

ANSWERING_METHODS = frozenset({"/baton.v1.GenerateService/Generate"})


class ObservedRpcs(grpc.aio.ServerInterceptor):
    """Has each such call be the current one while it is answered.

    Args:
        calls: begins and ends calls.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Handler:
        """The handler of a call, with the call around it."""
        handler = await continuation(details)
        if handler is None or details.method not in ANSWERING_METHODS:
            return handler
        method = details.method

        def watched(behaviour: Method) -> Method:
            async def watch(request: Any, context: Context) -> Any:  # noqa: ANN401 - any message
                with self._calls.open("grpc", method, metadata_of(context)):
                    return await behaviour(request, context)

            return watch

        return wrapped(handler, watched, handler.request_deserializer)


def metadata_of(context: Context) -> dict[str, str]:
    """The text entries of a call's metadata; of several with one name, the last."""
    entries = context.invocation_metadata() or ()
    return {name: value for name, value in entries if isinstance(value, str)}
