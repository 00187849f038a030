import asyncio
import signal
import socket

import httpx
import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http import httptools_impl

from router.http.server import serve_http
from tests.router.http.fakes import WAIT_S


class SlowApp:
    """Answers when told to."""

    def __init__(self) -> None:
        self.began, self.go_on, self.cancelled = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        self.began.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


def listen() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def url(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}/"


def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=WAIT_S, trust_env=False)


async def test_stop_waits_for_requests_under_way() -> None:
    app, listener = SlowApp(), listen()
    async with client() as http:
        async with serve_http(app, listener, stop_timeout_s=10):
            answer = asyncio.create_task(http.get(url(listener)))
            await app.began.wait()
            asyncio.get_running_loop().call_later(0.2, app.go_on.set)
        assert (await answer).text == "ok"
    assert listener.fileno() == -1


async def test_stop_cancels_requests_that_take_too_long() -> None:
    app, listener = SlowApp(), listen()
    async with client() as http:
        async with serve_http(app, listener, stop_timeout_s=0):
            answer = asyncio.create_task(http.get(url(listener)))
            await app.began.wait()
        assert app.cancelled.is_set()
        with pytest.raises(httpx.HTTPStatusError):
            (await answer).raise_for_status()


async def test_stopped_server_accepts_no_connection() -> None:
    listener = listen()
    address = url(listener)
    async with serve_http(SlowApp(), listener):
        pass
    async with client() as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(address)


async def test_signal_handlers_are_left_alone() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with serve_http(SlowApp(), listen()):
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


async def test_error_of_the_caller_is_raised_after_stopping() -> None:
    listener = listen()
    with pytest.raises(ValueError, match="the caller's"):
        async with serve_http(SlowApp(), listener):
            raise ValueError("the caller's")
    assert listener.fileno() == -1


async def test_socket_that_cannot_listen_is_an_error() -> None:
    listener = listen()
    listener.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        async with serve_http(SlowApp(), listener):
            pass


async def test_accepted_connections_have_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    options = []

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    listener = listen()
    original = httptools_impl.HttpToolsProtocol.connection_made

    def connection_made(self: httptools_impl.HttpToolsProtocol, transport: asyncio.Transport) -> None:
        accepted = transport.get_extra_info("socket")
        options.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        options.append(accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        options.append(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
        original(self, transport)

    monkeypatch.setattr(httptools_impl.HttpToolsProtocol, "connection_made", connection_made)
    async with serve_http(app, listener, write_timeout_s=45), client() as http:
        await http.get(url(listener))
    assert options == [1, 1, 45_000]
