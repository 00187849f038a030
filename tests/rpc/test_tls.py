"""Real servers and channels over TLS, with certificates of our own making."""

import asyncio

import grpc
import pytest

from core.errors import ConfigError
from rpc.channels import open_channel, open_sync_channel
from rpc.security import OPEN, RpcSecurity, TlsFiles
from rpc.servers import bind, new_server
from tests.rpc.certs import TestAuthority, new_authority
from tests.rpc.echo import SERVICE, TIMEOUT_S, Echo, ask, call_one, serving


async def refused(address: str, security: RpcSecurity) -> str:
    """What a call fails with that no connection comes about for."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(address, security)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    return caught.value.details() or ""


async def test_client_that_trusts_the_ca_is_served(authority: TestAuthority) -> None:
    files = authority.files()
    server = RpcSecurity(TlsFiles(files.cert, files.key))
    async with serving(Echo(), server) as address:
        assert await ask(address, RpcSecurity(TlsFiles(ca=files.ca))) == [b"a"]


async def test_mutual_tls_with_a_token_serves_those_who_have_both(authority: TestAuthority) -> None:
    cluster = RpcSecurity(authority.files(), ("t" * 20,))
    async with serving(Echo(), cluster) as address:
        assert await ask(address, cluster) == [b"a"]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(address, RpcSecurity(cluster.tls))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_client_without_a_certificate_is_not_served(authority: TestAuthority) -> None:
    files, echo = authority.files(), Echo()
    async with serving(echo, RpcSecurity(files)) as address:
        await refused(address, RpcSecurity(TlsFiles(ca=files.ca)))
    assert echo.heard == []


async def test_client_with_a_certificate_of_another_ca_is_not_served(
    authority: TestAuthority, tmp_path_factory: pytest.TempPathFactory
) -> None:
    files, echo = authority.files(), Echo()
    stranger = new_authority(tmp_path_factory.mktemp("other") / "ca").files()
    async with serving(echo, RpcSecurity(files)) as address:
        await refused(address, RpcSecurity(TlsFiles(stranger.cert, stranger.key, files.ca)))
    assert echo.heard == []


async def test_server_of_another_ca_is_not_believed(
    authority: TestAuthority, tmp_path_factory: pytest.TempPathFactory
) -> None:
    echo = Echo()
    stranger = new_authority(tmp_path_factory.mktemp("other") / "ca").files()
    async with serving(echo, RpcSecurity(TlsFiles(stranger.cert, stranger.key))) as address:
        assert "CERTIFICATE_VERIFY_FAILED" in await refused(address, RpcSecurity(TlsFiles(ca=authority.files().ca)))
    assert echo.heard == []


async def test_server_with_a_certificate_for_another_host_is_not_believed(authority: TestAuthority) -> None:
    files, echo = authority.files(hosts=("elsewhere",)), Echo()
    async with serving(echo, RpcSecurity(TlsFiles(files.cert, files.key))) as address:
        assert "127.0.0.1" in await refused(address, RpcSecurity(TlsFiles(ca=files.ca)))
    assert echo.heard == []


async def test_plain_client_is_not_served_over_tls(authority: TestAuthority) -> None:
    files, echo = authority.files(), Echo()
    async with serving(echo, RpcSecurity(TlsFiles(files.cert, files.key))) as address:
        await refused(address, OPEN)
    assert echo.heard == []


async def test_tls_client_is_not_served_in_plain_text(authority: TestAuthority) -> None:
    echo = Echo()
    async with serving(echo) as address:
        await refused(address, RpcSecurity(TlsFiles(ca=authority.files().ca)))
    assert echo.heard == []


async def test_renewed_certificate_is_shown_to_new_connections_and_old_ones_go_on(authority: TestAuthority) -> None:
    files = authority.files()
    client = RpcSecurity(TlsFiles(ca=files.ca))
    async with serving(Echo(), RpcSecurity(TlsFiles(files.cert, files.key))) as address:
        async with open_channel(address, client) as old:
            assert await call_one(old) == [b"a"]
            authority.files(hosts=("elsewhere",))
            assert await call_one(old) == [b"a"]
            assert "127.0.0.1" in await refused(address, RpcSecurity(TlsFiles(ca=files.ca)))
        authority.files()
        assert await ask(address, client) == [b"a"]


async def test_renewed_certificate_of_a_client_is_shown_by_its_next_call_and_calls_under_way_go_on(
    authority: TestAuthority,
) -> None:
    server, client, echo = authority.files(), authority.files("client", hosts=("before",)), Echo()
    async with serving(echo, RpcSecurity(server)) as address, open_channel(address, RpcSecurity(client)) as channel:
        one = channel.unary_unary(f"/{SERVICE}/One")
        stream = channel.stream_stream(f"/{SERVICE}/Each")(timeout=TIMEOUT_S)
        for message in (b"a", b"b"):
            await stream.write(message)
            assert await stream.read() == message
            assert await one(message, timeout=TIMEOUT_S) == message
            authority.files("client", hosts=("after",))
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
    assert echo.callers == ["before", "after"]


async def test_blocking_channel_shows_a_renewed_certificate_too(authority: TestAuthority) -> None:
    server, client, echo = authority.files(), authority.files("client", hosts=("before",)), Echo()

    def call_twice(address: str) -> None:
        with open_sync_channel(address, RpcSecurity(client)) as channel:
            one = channel.unary_unary(f"/{SERVICE}/One")
            one(b"", timeout=TIMEOUT_S)
            authority.files("client", hosts=("after",))
            one(b"", timeout=TIMEOUT_S)

    async with serving(echo, RpcSecurity(server)) as address:
        await asyncio.to_thread(call_twice, address)
    assert echo.callers == ["before", "after"]


async def test_unusable_certificate_binds_and_opens_nothing(authority: TestAuthority) -> None:
    files = authority.files(days=-1)
    with pytest.raises(ConfigError, match="expired"):
        bind(new_server(), "127.0.0.1:0", files)
    with pytest.raises(ConfigError, match="expired"):
        open_channel("127.0.0.1:1", RpcSecurity(files))


async def test_port_that_cannot_be_bound_is_an_os_error() -> None:
    with pytest.raises(OSError, match=r"192\.0\.2\.1"):
        bind(new_server(), "192.0.2.1:0")
