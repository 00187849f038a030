"""A dashboard's server in a thread, which goes away and comes back at the same port when a test says so."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable

import uvloop

from router.http.server import serve_http
from tests.router.dashboard.fakes import DashboardWorld

WAIT_S = 10.0
TICK_S = 0.2  # states come more often than in life, so that tests wait less


class DashboardServer:
    """Serves a world's dashboard between `start` and `stop`."""

    def __init__(self, world: DashboardWorld) -> None:
        self.world = world
        self._port = 0
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/dashboard"

    def start(self) -> None:
        ready = threading.Event()
        listener = socket.create_server(("127.0.0.1", self._port))
        self._port = listener.getsockname()[1]
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, args=(listener, ready))
        self._thread.start()
        assert ready.wait(WAIT_S)

    def stop(self) -> None:
        if self._thread is None or self._loop is None:
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()
        self._thread = None

    def do(self, change: Callable[[], None]) -> None:
        """Changes the world where its server reads it, and waits until that is done."""
        done = threading.Event()

        def run() -> None:
            change()
            done.set()

        assert self._loop is not None
        self._loop.call_soon_threadsafe(run)
        assert done.wait(WAIT_S)

    def _run(self, listener: socket.socket, ready: threading.Event) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve(listener, ready))

    async def _serve(self, listener: socket.socket, ready: threading.Event) -> None:
        feed = self.world.feed(TICK_S)
        self._loop = asyncio.get_running_loop()
        async with serve_http(self.world.app(feed), listener):
            with contextlib.closing(feed):
                ready.set()
                await self._stop.wait()
