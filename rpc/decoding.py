"""Refusing bytes that are no message. gRPC itself calls that a defect of the server, and logs a trace each time."""

from typing import Any

import grpc
from google.protobuf.message import DecodeError

from core.errors import InvalidRequestError
from rpc.abort import Context, abort
from rpc.wrapping import Continuation, Handler, Method, wrapped


class WellFormed(grpc.aio.ServerInterceptor):
    """Ends calls whose request cannot be read with INVALID_ARGUMENT; streams of requests are not its own."""

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        """The method's handler, which reads the request itself; None where there is no such method."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_streaming or handler.request_deserializer is None:
            return handler
        read, name = handler.request_deserializer, handler_call_details.method

        def reading(method: Method) -> Method:
            async def act(message: bytes, context: Context) -> Any:  # noqa: ANN401 - any message
                try:
                    request = read(message)
                except DecodeError as error:
                    await abort(context, InvalidRequestError(f"this is no request of {name}: {error}"))
                return await method(request, context)

            return act

        return wrapped(handler, reading, bytes)
