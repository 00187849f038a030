import asyncio

import grpc
import pytest

from rpc.channels import open_channel
from rpc.limits import PUBLIC_SERVER_OPTIONS
from tests.rpc.echo import SERVICE, TIMEOUT_S, Echo, serving


async def test_message_over_the_limit_ends_its_call_and_is_not_heard() -> None:
    echo = Echo()
    async with serving(echo, max_message_bytes=1000) as address, open_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(f"/{SERVICE}/One")(bytes(1001), timeout=TIMEOUT_S)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await channel.unary_unary(f"/{SERVICE}/One")(bytes(1000), timeout=TIMEOUT_S) == bytes(1000)
    assert echo.heard == [bytes(1000)]


async def test_metadata_over_the_limit_ends_its_call() -> None:
    echo = Echo()
    async with serving(echo, options=PUBLIC_SERVER_OPTIONS) as address, open_channel(address) as channel:
        call = channel.unary_unary(f"/{SERVICE}/One")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"a", timeout=TIMEOUT_S, metadata=(("x-long", "x" * 100_000),))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await call(b"a", timeout=TIMEOUT_S) == b"a"
    assert echo.heard == [b"a"]


async def test_call_over_the_limit_of_calls_is_refused_until_another_has_ended() -> None:
    async with serving(Echo(), max_calls=1) as address, open_channel(address) as channel:
        waiting = channel.stream_stream(f"/{SERVICE}/Each")(timeout=TIMEOUT_S)
        await waiting.write(b"a")
        assert await waiting.read() == b"a"
        one = channel.unary_unary(f"/{SERVICE}/One")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await one(b"b", timeout=TIMEOUT_S)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await waiting.done_writing()
        assert await waiting.read() is grpc.aio.EOF
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                try:
                    assert await one(b"b", timeout=TIMEOUT_S) == b"b"
                    break
                except grpc.aio.AioRpcError as error:  # the call before is still being put away
                    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # noqa: PT017
