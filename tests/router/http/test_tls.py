"""The HTTP port over TLS, with a client that is not ours."""

import socket
import ssl
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from core.errors import ConfigError
from router.http.server import serve_http
from rpc.security import TlsFiles
from tests.router.http.fakes import WAIT_S
from tests.rpc.certs import TestAuthority, new_authority, replace


@pytest.fixture
def authority(tmp_path: Path) -> TestAuthority:
    return new_authority(tmp_path / "ca")


async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def get(listener: socket.socket, files: TlsFiles, scheme: str = "https") -> str:
    """The answer to a request over a connection of its own."""
    context = ssl.create_default_context(cafile=files.ca)
    if files.cert is not None:
        context.load_cert_chain(files.cert, files.key)
    async with httpx.AsyncClient(timeout=WAIT_S, trust_env=False, verify=context) as client:
        return (await client.get(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/")).text


def listen() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


async def test_client_that_trusts_the_ca_is_answered(authority: TestAuthority) -> None:
    files, listener = authority.files(), listen()
    async with serve_http(app, listener, tls=TlsFiles(files.cert, files.key)):
        assert await get(listener, TlsFiles(ca=files.ca)) == "ok"


async def test_client_without_a_certificate_is_not_answered_where_one_is_asked_for(
    authority: TestAuthority, tmp_path: Path
) -> None:
    files, listener = authority.files(), listen()
    stranger = new_authority(tmp_path / "other").files()
    async with serve_http(app, listener, tls=files):
        assert await get(listener, files) == "ok"
        for client in (TlsFiles(ca=files.ca), TlsFiles(stranger.cert, stranger.key, files.ca)):
            with pytest.raises(httpx.HTTPError):
                await get(listener, client)


async def test_plain_client_is_not_answered(authority: TestAuthority) -> None:
    files, listener = authority.files(), listen()
    async with serve_http(app, listener, tls=TlsFiles(files.cert, files.key)):
        with pytest.raises(httpx.HTTPError):
            await get(listener, TlsFiles(ca=files.ca), scheme="http")


async def test_renewed_certificate_is_shown_to_the_next_connection(authority: TestAuthority) -> None:
    files, listener = authority.files(hosts=("elsewhere",)), listen()
    async with serve_http(app, listener, tls=TlsFiles(files.cert, files.key)):
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await get(listener, TlsFiles(ca=files.ca))
        authority.files()
        for _ in range(2):
            assert await get(listener, TlsFiles(ca=files.ca)) == "ok"


async def test_clients_of_a_replaced_ca_are_no_longer_answered(authority: TestAuthority, tmp_path: Path) -> None:
    files, listener = authority.files(), listen()
    old, new = authority.files("client"), new_authority(tmp_path / "new").files()
    assert files.ca is not None
    assert new.ca is not None
    async with serve_http(app, listener, tls=files):
        assert await get(listener, old) == "ok"
        server_ca = old.ca
        replace(files.ca, new.ca.read_bytes())
        assert await get(listener, TlsFiles(new.cert, new.key, server_ca)) == "ok"
        with pytest.raises(httpx.HTTPError):
            await get(listener, TlsFiles(old.cert, old.key, server_ca))


async def test_unusable_certificate_is_named_before_anything_is_served(authority: TestAuthority) -> None:
    files = authority.files(days=-1)
    with listen() as listener, pytest.raises(ConfigError, match="expired"):
        async with serve_http(app, listener, tls=files):
            pytest.fail("it serves")
