"""One keep-alive connection to an HTTP/1.1 server, an answer at a time. Knows nothing of what is in a body.

Written for streams of many small pieces: the clock is read once per read of the socket, and all pieces of a body that
one read brought are handed on in one.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from core.clock import Clock

FIRST_FINAL_STATUS = 200  # those below announce another answer to the same request


class AnswerSink(Protocol):
    """Gets one answer. Of `on_end` and `on_broken` exactly one is called, last."""

    def on_head(self, status: int, now_s: float) -> None:
        """The head is complete."""
        ...

    def on_body(self, piece: bytes, now_s: float) -> None:
        """A part of the body came; never empty."""
        ...

    def on_end(self, now_s: float) -> None:
        """The answer is complete."""
        ...

    def on_broken(self, kind: str, reason: str, now_s: float) -> None:
        """It will never be: the connection is gone (`cut_off`), or the server does not speak HTTP (`bad_http`)."""
        ...


class HttpConnection(asyncio.Protocol):
    """Made by a pool, for `loop.create_connection`.

    Args:
        clock: of the times that sinks are told.
        on_free: called when an answer is complete and another may be asked for.
        on_closed: called when the connection is closed, by whomever, once.
    """

    def __init__(
        self,
        clock: Clock,
        on_free: "Callable[[HttpConnection], None]",
        on_closed: "Callable[[HttpConnection], None]",
    ) -> None:
        self._clock = clock
        self._on_free = on_free
        self._on_closed = on_closed
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._sink: AnswerSink | None = None
        self._now_s = 0.0
        self._pieces: list[bytes] = []
        self._is_complete = False
        self._ends_with_connection = True
        self._has_head = False
        self._is_kept = False

    @property
    def is_open(self) -> bool:
        """Whether a request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, request: bytes, sink: AnswerSink) -> None:
        """Sends a request on a free connection. If the server has just closed it, the sink hears so at once."""
        assert self._sink is None, "one answer at a time"
        self._sink = sink
        if self._transport is None or self._transport.is_closing():
            self._now_s = self._clock.now_s()
            self._break("cut_off", "the connection was closed before the request was sent")
            return
        self._is_complete = self._has_head = False
        self._ends_with_connection = True
        self._transport.write(request)

    def close(self) -> None:
        """Closes it at once; whoever waits for an answer hears nothing more."""
        self._sink = None
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
            self._on_closed(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast("asyncio.Transport", transport)  # of a stream, as uvloop's are without inheriting it

    def data_received(self, data: bytes) -> None:
        """Called by the event loop with what the socket had."""
        if self._sink is None:
            self.close()  # nothing was asked, so what comes is no answer
            return
        self._now_s = self._clock.now_s()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._break("bad_http", f"{error!r} in {data[:200]!r}")
            return
        self._hand_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self._now_s = self._clock.now_s()
        if self._sink is not None and self._has_head and self._ends_with_connection and exc is None:
            sink, self._sink = self._sink, None
            sink.on_end(self._now_s)
        self._break("cut_off", f"the connection was closed: {exc or 'by the server'}")

    def on_header(self, name: bytes, _value: bytes) -> None:
        """Called by the parser."""
        if name.lower() in {b"content-length", b"transfer-encoding"}:
            self._ends_with_connection = False

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        status = self._parser.get_status_code()
        if status >= FIRST_FINAL_STATUS and self._sink is not None:
            self._has_head = True
            self._sink.on_head(status, self._now_s)

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._is_complete = self._has_head
        self._is_kept = self._parser.should_keep_alive()  # known here and nowhere else

    def _hand_on(self) -> None:
        sink, pieces = self._sink, self._pieces
        if pieces and sink is not None:
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            sink.on_body(body, self._now_s)
        if self._is_complete and self._sink is not None:  # the sink may have closed the connection
            self._end(self._sink)

    def _end(self, sink: AnswerSink) -> None:
        self._sink = None
        sink.on_end(self._now_s)
        if self._is_kept and self.is_open:
            self._on_free(self)
        else:
            self.close()

    def _break(self, kind: str, reason: str) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.on_broken(kind, reason, self._now_s)
        self.close()
