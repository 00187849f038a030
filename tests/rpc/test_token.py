import asyncio
import logging

import grpc
import pytest

from core.errors import ERROR_CODE_KEY, ClusterTokenError
from rpc.channels import open_channel, open_sync_channel
from rpc.security import OPEN, RpcSecurity
from tests.rpc.echo import ANSWERS, CALLS, SERVICE, TIMEOUT_S, Echo, ask, serving

TOKEN, OTHER = "t" * 20, "o" * 20
CLUSTER = RpcSecurity(tokens=(TOKEN,))


def test_repr_does_not_show_tokens() -> None:
    assert TOKEN not in repr(CLUSTER)


@pytest.mark.parametrize("kind", CALLS)
async def test_call_with_the_token_is_answered(kind: str) -> None:
    async with serving(Echo(), CLUSTER) as address:
        assert await ask(address, CLUSTER, kind) == ANSWERS[kind]


@pytest.mark.parametrize("security", [OPEN, RpcSecurity(tokens=(OTHER,)), RpcSecurity(tokens=(TOKEN[:-1],))])
@pytest.mark.parametrize("kind", CALLS)
async def test_call_without_the_token_is_refused_and_does_nothing(kind: str, security: RpcSecurity) -> None:
    echo = Echo()
    async with serving(echo, CLUSTER) as address:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(address, security, kind)
    assert echo.heard == []
    if kind.startswith("stream") and caught.value.code() is grpc.StatusCode.INTERNAL:
        return  # gRPC found the call at an end while it still sent, and says that instead
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert dict(caught.value.trailing_metadata())[ERROR_CODE_KEY] == ClusterTokenError.code
    assert "--cluster-token-file" in (caught.value.details() or "")


async def test_call_to_a_method_that_is_not_there_is_refused_as_any_other() -> None:
    async with serving(Echo(), CLUSTER) as address, open_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/test.Other/Method")(b"", timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_stream_that_says_nothing_is_refused_all_the_same() -> None:
    async with serving(Echo(), CLUSTER) as address, open_channel(address) as channel:
        call = channel.stream_stream(f"/{SERVICE}/Each")(timeout=TIMEOUT_S)
        assert await call.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("shown", [(TOKEN,), (f"bearer {TOKEN}",), (f"Bearer {TOKEN}", f"Bearer {OTHER}"), ("",)])
async def test_header_that_is_not_just_the_token_is_refused(shown: tuple[str, ...]) -> None:
    metadata = tuple(("authorization", value) for value in shown)
    async with serving(Echo(), CLUSTER) as address, open_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(f"/{SERVICE}/One")(b"a", timeout=TIMEOUT_S, metadata=metadata)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_first_token_is_shown_and_all_are_accepted_so_tokens_can_be_changed_one_process_after_another() -> None:
    before, changing, after = (RpcSecurity(tokens=tokens) for tokens in ((TOKEN,), (OTHER, TOKEN), (OTHER,)))
    async with serving(Echo(), changing) as address:
        for caller in (before, changing, after):
            assert await ask(address, caller) == [b"a"]
    async with serving(Echo(), after) as address:
        assert await ask(address, changing) == [b"a"]
        with pytest.raises(grpc.aio.AioRpcError):
            await ask(address, before)


async def test_metadata_of_the_caller_goes_along_with_the_token() -> None:
    seen = []

    async def method(_request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        seen.append(dict(context.invocation_metadata() or ()))
        return b""

    echo = Echo()
    echo.one = method  # type: ignore[method-assign,assignment]
    async with serving(echo, CLUSTER) as address, open_channel(address, CLUSTER) as channel:
        await channel.unary_unary(f"/{SERVICE}/One")(b"", timeout=TIMEOUT_S, metadata=(("x-trace", "1"),))
    assert seen[0]["x-trace"] == "1"


async def test_blocking_channel_shows_the_token_too() -> None:
    def call(address: str) -> tuple[object, list[object]]:
        with open_sync_channel(address, CLUSTER) as channel:
            one = channel.unary_unary(f"/{SERVICE}/One")(b"a", timeout=TIMEOUT_S)
            return one, list(channel.unary_stream(f"/{SERVICE}/Many")(b"a", timeout=TIMEOUT_S))

    async with serving(Echo(), CLUSTER) as address:
        assert await asyncio.to_thread(call, address) == (b"a", [b"a", b"a"])


async def test_refused_host_is_logged_once_and_without_what_it_showed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "rpc")
    async with serving(Echo(), CLUSTER) as address:
        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError):
                await ask(address, RpcSecurity(tokens=(OTHER,)))
    (record,) = [record for record in caplog.records if record.name == "rpc.token"]
    assert record.getMessage() == (
        "ipv4:127.0.0.1 calls without this cluster's token; it is refused, and not mentioned again"
    )
