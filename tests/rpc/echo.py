"""A service of plain bytes with a method of each kind of call, over real servers and channels of `rpc`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from rpc.channels import open_channel
from rpc.limits import Options
from rpc.security import OPEN, RpcSecurity
from rpc.servers import bind, new_server

TIMEOUT_S = 10.0
SERVICE = "test.Echo"


class Echo:
    """Keeps what it has been called with.

    Attributes:
        heard: messages of all calls.
        callers: of calls of `One`, by whom their certificates are for; none of those without.
    """

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.callers: list[str] = []

    async def one(self, request: bytes, context: Any) -> bytes:  # noqa: ANN401
        self.callers += [name.decode() for name in context.peer_identities() or ()]
        self.heard.append(request)
        return request

    async def many(self, request: bytes, _context: Any) -> AsyncIterator[bytes]:  # noqa: ANN401
        self.heard.append(request)
        for _ in range(2):
            yield request

    async def last(self, requests: AsyncIterator[bytes], _context: Any) -> bytes:  # noqa: ANN401
        self.heard.extend([request async for request in requests])
        return self.heard[-1]

    async def each(self, requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:  # noqa: ANN401
        async for request in requests:
            self.heard.append(request)
            yield request

    def handler(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "One": grpc.unary_unary_rpc_method_handler(self.one),
                "Many": grpc.unary_stream_rpc_method_handler(self.many),
                "Last": grpc.stream_unary_rpc_method_handler(self.last),
                "Each": grpc.stream_stream_rpc_method_handler(self.each),
            },
        )


@asynccontextmanager
async def serving(
    echo: Echo,
    security: RpcSecurity = OPEN,
    options: Options = (),
    **settings: Any,  # noqa: ANN401
) -> AsyncIterator[str]:
    """The address of a server while the context lasts."""
    server = new_server(security, options, **settings)
    server.add_generic_rpc_handlers((echo.handler(),))
    port = bind(server, "127.0.0.1:0", security.tls)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def requests(*messages: bytes) -> AsyncIterator[bytes]:
    for message in messages:
        yield message


async def call_one(channel: grpc.aio.Channel) -> list[bytes]:
    return [await channel.unary_unary(f"/{SERVICE}/One")(b"a", timeout=TIMEOUT_S)]


async def call_many(channel: grpc.aio.Channel) -> list[bytes]:
    return [answer async for answer in channel.unary_stream(f"/{SERVICE}/Many")(b"a", timeout=TIMEOUT_S)]


async def call_last(channel: grpc.aio.Channel) -> list[bytes]:
    return [await channel.stream_unary(f"/{SERVICE}/Last")(requests(b"a", b"b"), timeout=TIMEOUT_S)]


async def call_each(channel: grpc.aio.Channel) -> list[bytes]:
    call = channel.stream_stream(f"/{SERVICE}/Each")(requests(b"a", b"b"), timeout=TIMEOUT_S)
    return [answer async for answer in call]


CALLS: dict[str, Callable[[grpc.aio.Channel], Awaitable[list[bytes]]]] = {
    "unary_unary": call_one,
    "unary_stream": call_many,
    "stream_unary": call_last,
    "stream_stream": call_each,
}
ANSWERS = {"unary_unary": [b"a"], "unary_stream": [b"a", b"a"], "stream_unary": [b"b"], "stream_stream": [b"a", b"b"]}


async def ask(address: str, security: RpcSecurity = OPEN, kind: str = "unary_unary") -> list[bytes]:
    """One call over a channel of its own."""
    async with open_channel(address, security) as channel:
        return await asyncio.wait_for(CALLS[kind](channel), TIMEOUT_S)
