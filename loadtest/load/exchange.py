"""One answer on its way from a connection into a record. Not the connection, and not what events mean."""

import asyncio
import json

from loadtest.load.answer_reader import AnswerReader, error_of
from loadtest.load.event_cutter import EventCutter, EventTooLongError

OK = 200
MAX_ERROR_BYTES = 64 * 1024  # of the body of an answer that is no stream; more is not read


class Exchange:
    """Implements `loadtest.load.http_connection.AnswerSink`.

    Args:
        reader: gets the events, and learns of every failure.

    Attributes:
        ended: set when nothing more is to be waited for.
        is_over: whether nothing more comes; if it is not, the connection is good for no other request.
    """

    def __init__(self, reader: AnswerReader) -> None:
        self.is_over = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reader = reader
        self._cutter = EventCutter()
        self._status = OK
        self._has_events = False
        self._refusal = b""

    def on_head(self, status: int, now_s: float) -> None:
        """The head is complete."""
        self._status = status
        self._reader.begin(status, now_s)

    def on_body(self, piece: bytes, now_s: float) -> None:
        """A part of the body came."""
        if self._status != OK:
            self._refusal = (self._refusal + piece)[:MAX_ERROR_BYTES]
            return
        try:
            events = self._cutter.feed(piece)
            self._has_events = self._has_events or bool(events)
            self._reader.take(events, now_s)
        except EventTooLongError as error:
            self._reader.fail("bad_event", str(error), now_s)
            self._finish()

    def on_end(self, now_s: float) -> None:
        """The body is complete."""
        if self._status == OK and self._cutter.rest and not self._has_events:
            self._reader.fail("no_stream", refusal_message(self._cutter.rest), now_s)
        elif self._status == OK:
            self._reader.end(now_s)
        else:
            self._reader.fail(f"http_{self._status}", refusal_message(self._refusal), now_s)
        self.is_over = True
        self._finish()

    def on_broken(self, kind: str, reason: str, now_s: float) -> None:
        """The connection is gone. An answer whose last event has come is complete all the same."""
        if self._reader.is_complete:
            self._reader.end(now_s)
        else:
            self._reader.fail(kind, reason, now_s)
        self.is_over = True
        self._finish()

    def _finish(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


def refusal_message(body: bytes) -> str:
    """What the body of a refusal says: the message of an error document, or its text."""
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    error = error_of(document) if isinstance(document, dict) else None
    return error[1] if error else body.decode("utf-8", "replace")
