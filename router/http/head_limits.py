"""What uvicorn's httptools protocol lacks: limits on a request's head (size, headers, time), and word of its end.

Without limits a client could send headers without end, or hold a connection with a byte a minute.
"""

import asyncio
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from core.errors import InvalidRequestError
from router.http.disconnect import EXTENSION, ConnectionEnd
from router.http.errors import error_body

MAX_HEAD_BYTES = 64 * 1024  # request line and headers; other servers take 8 to 64 KiB
MAX_HEADERS = 100
HEAD_TIMEOUT_S = 30.0  # from the connection, or from the first byte after an answer, to the end of a head

_TOO_LARGE = error_body(
    InvalidRequestError(
        f"the head of the request has more than {MAX_HEAD_BYTES} bytes or {MAX_HEADERS} headers; send fewer"
    )
)


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which also closes connections whose head is too large (status 431) or too slow.

    Its scopes have a `ConnectionEnd` among their extensions.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._end = ConnectionEnd()
        self._extensions = {EXTENSION: self._end}
        self._timer: asyncio.TimerHandle | None = None
        self._is_in_head = False
        self._is_refused = False
        self._num_parsed_bytes = 0  # of the current head
        self._num_pieces_bytes = 0  # of what came for it after the piece it began in, parsed or not

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._stop_timer()
        super().connection_lost(exc)
        self._end.come()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`; the parser keeps a header that has not ended, so what came for it is counted."""
        self._num_pieces_bytes += len(data)
        if self._is_in_head and self._num_pieces_bytes > MAX_HEAD_BYTES:
            self._refuse()
            return
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:  # type: ignore[redundant-expr] # uvicorn has None there
            self._start_timer()  # most heads come in one piece, and need none

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.scope["extensions"] = self._extensions  # type: ignore[typeddict-item] # any may be there
        self._is_in_head = True
        self._num_parsed_bytes = self._num_pieces_bytes = 0

    def on_url(self, url: bytes) -> None:
        """A piece of the request's target has come."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header has come."""
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head has ended."""
        self._is_in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """What uvicorn answers when the parser fails, also when it is this class that makes it fail."""
        if not self._is_refused:
            super().send_400_response(msg)

    def _count(self, num_bytes: int) -> None:
        self._num_parsed_bytes += num_bytes
        if self._num_parsed_bytes > MAX_HEAD_BYTES or len(self.headers) >= MAX_HEADERS:
            self._refuse()
            raise ValueError("the head is too large")  # ends the parsing

    def _refuse(self) -> None:
        self._is_refused = True
        head = (
            "HTTP/1.1 431 Request Header Fields Too Large\r\n"
            f"content-type: application/json\r\ncontent-length: {len(_TOO_LARGE)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode("ascii") + _TOO_LARGE)
        self.transport.close()

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
