"""Watches the calls of the gRPC API that ask for an answer, those that are refused included."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from router.observe.call import Calls
from router.observe.traceparent import HEADER
from router.rpc.context import Context
from router.rpc.timing import metadata_of

ANSWERING_METHODS = frozenset({"/baton.v1.GenerateService/Generate"})

Handler = Any  # grpc.RpcMethodHandler, which has no types of its own
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler]]


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
        method, answer = details.method, handler.unary_stream

        async def observed(request: object, context: Context) -> None:
            with self._calls.open("grpc", method, metadata_of(context).get(HEADER)):
                await answer(request, context)

        return grpc.unary_stream_rpc_method_handler(
            observed, handler.request_deserializer, handler.response_serializer
        )
