"""Listening: uvicorn on a bound socket, inside the caller's event loop. Knows nothing of what it serves."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from router.http.head_limits import LimitedProtocol
from rpc.security import TlsFiles

KEEP_ALIVE_S = 100  # longer than clients keep an idle connection (Go: 90 s), so that the client closes it first
ABORT_TIMEOUT_S = 2.0  # for requests to notice that they were cancelled


class _EmbeddedServer(uvicorn.Server):
    """A uvicorn server that leaves signals to the process it runs in, and tells when it has started."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Does nothing: the caller decides when to stop."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to accept connections."""
        await super().startup(sockets=sockets)
        self.listening.set()

    def stop_listening(self) -> None:
        """Accepts no more connections; those there are stay open."""
        for server in self.servers:
            server.close()


@contextlib.asynccontextmanager
async def serve_http(
    app: ASGIApp,
    listener: socket.socket,
    *,
    write_timeout_s: float = 600.0,
    stop_timeout_s: int = 10,
    tls: TlsFiles | None = None,
) -> AsyncIterator[Callable[[], None]]:
    """Serves `app` on `listener` for as long as the context lasts; yields what makes it accept no more connections.

    On leaving, no connection is accepted any more, idle ones are closed, and requests under way may finish for
    `stop_timeout_s` seconds; then they are cancelled. Signals are not touched.

    Args:
        app: an ASGI application without lifespan events.
        listener: a bound TCP socket; it is closed on leaving.
        write_timeout_s: a client that takes no byte of its answer for so long is treated as gone.
        stop_timeout_s: whole seconds that requests may take to finish on leaving.
        tls: None for plain text.

    Raises:
        ConfigError: a certificate cannot be used.
        OSError: the socket cannot be listened on.
    """
    set_socket_options(listener, write_timeout_s)
    context = None if tls is None else _tls_context(tls)
    server = _EmbeddedServer(
        uvicorn.Config(
            app,
            http=LimitedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,  # logging is the process's to configure
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=stop_timeout_s,
            ssl_context_factory=None if context is None else lambda _config, _default: context,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await _wait_until_listening(server, serving)
        yield server.stop_listening
    finally:
        server.should_exit = True
        await asyncio.wait((serving,))
        await _wait_for_requests(server)
    serving.result()


def _tls_context(tls: TlsFiles) -> ssl.SSLContext:
    from router.http.tls import server_context  # noqa: PLC0415 - slow to import, and only for TLS

    return server_context(tls)


def set_socket_options(listener: socket.socket, write_timeout_s: float) -> None:
    """Sets on a listening socket what its accepted connections inherit (Linux: tcp(7), socket(7)).

    No delay for small events; and a peer that vanished without a word, or does not read, is found out.
    """
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        return
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # A silent peer is asked after 30 s, then every 10 s, and given up after a minute in all.
    linux_options = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
    for name, value in (*linux_options, ("TCP_USER_TIMEOUT", int(write_timeout_s * 1000))):
        if hasattr(socket, name):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def _wait_until_listening(server: _EmbeddedServer, serving: "asyncio.Task[None]") -> None:
    listening = asyncio.create_task(server.listening.wait())
    try:
        await asyncio.wait((listening, serving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        listening.cancel()
    if serving.done():
        serving.result()


async def _wait_for_requests(server: _EmbeddedServer) -> None:
    cancelled = list(server.server_state.tasks)
    if cancelled:
        await asyncio.wait(cancelled, timeout=ABORT_TIMEOUT_S)
