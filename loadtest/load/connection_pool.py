"""Keep-alive connections to one server. Not what is sent on them."""

import asyncio
import ssl

from core.clock import Clock
from loadtest.load.http_connection import HttpConnection
from loadtest.load.target import Target

# Servers close connections that have been idle for some seconds (uvicorn: 5). One that is used at that very moment
# would fail for no fault of anybody, so none is used after this.
MAX_IDLE_S = 3.0


class TooManyConnectionsError(Exception):
    """The client may not open another connection."""


class ConnectionPool:
    """Opens connections as they are needed; the one that was used last is used first.

    Args:
        target: where they go.
        tls: how the server is verified; of no meaning without TLS.
        clock: of the connections.
        max_open: no more at once.
    """

    def __init__(self, target: Target, tls: ssl.SSLContext | None, clock: Clock, max_open: int) -> None:
        self._target = target
        self._tls = tls if target.is_tls else None
        self._clock = clock
        self._max_open = max_open
        self._idle: list[tuple[HttpConnection, float]] = []
        self._open: set[HttpConnection] = set()
        self._num_opening = 0

    async def take(self) -> HttpConnection:
        """A connection that is free, and open as far as is known. It comes back by itself with its whole answer.

        Raises:
            TooManyConnectionsError: `max_open` are in use.
            OSError: the server takes none.
            UnicodeError: its host can be no name.
        """
        while self._idle:
            connection, since_s = self._idle.pop()
            if connection.is_open and self._clock.now_s() - since_s < MAX_IDLE_S:
                return connection
            connection.close()
        if len(self._open) + self._num_opening >= self._max_open:
            raise TooManyConnectionsError(f"{self._max_open} connections are open, as many as --max-open allows")
        self._num_opening += 1
        try:
            connection = await self._connect()
        finally:
            self._num_opening -= 1
        if connection.is_open:
            self._open.add(connection)
        return connection

    def close(self) -> None:
        """Closes idle connections; those in use are closed by who uses them."""
        while self._idle:
            self._idle.pop()[0].close()

    async def _connect(self) -> HttpConnection:
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: HttpConnection(self._clock, self._is_free, self._open.discard),
            self._target.host,
            self._target.port,
            ssl=self._tls,
        )
        return connection

    def _is_free(self, connection: HttpConnection) -> None:
        self._idle.append((connection, self._clock.now_s()))
