"""gRPC services on loopback, in the test's own event loop."""

import contextlib
from collections.abc import AsyncIterator

import grpc


@contextlib.asynccontextmanager
async def channel_to(server: grpc.aio.Server) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server that has its services and is not started yet; both end with the context."""
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)
