"""Cuts a body into server-sent events as the HTML standard says, at little cost per event. Knows nothing of JSON.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

MAX_EVENT_BYTES = 4 * 1024 * 1024  # far above any answer's event; what goes on without an end is no event stream


class EventTooLongError(ValueError):
    """An event went on for more than `MAX_EVENT_BYTES`."""


class EventCutter:
    """Takes the body of one answer piece by piece, however it was cut, and gives the data of its events."""

    __slots__ = ("_ended_with_cr", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._ended_with_cr = False

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of each event that is complete with this piece, in order; lines of one event joined by LF.

        Events without data are none, as comments alone are.

        Raises:
            EventTooLongError: an event does not end.
        """
        if piece and (self._ended_with_cr or b"\r" in piece):
            piece = self._with_line_feeds(piece)
        *events, self._rest = (self._rest + piece).split(b"\n\n")
        if len(self._rest) > MAX_EVENT_BYTES:
            raise EventTooLongError(f"an event of more than {MAX_EVENT_BYTES} bytes")
        return [data for event in events if (data := _data_of(event)) is not None]

    @property
    def rest(self) -> bytes:
        """What has come of an event that is not complete."""
        return self._rest

    def _with_line_feeds(self, piece: bytes) -> bytes:
        if self._ended_with_cr:
            piece = piece.removeprefix(b"\n")  # the second half of a CRLF whose first half ended a line already
        self._ended_with_cr = piece.endswith(b"\r")
        return piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _data_of(event: bytes) -> bytes | None:
    if event.startswith(b"data: ") and b"\n" not in event:  # what nearly all events are
        return event[6:]
    fields = [line.partition(b":")[::2] for line in event.split(b"\n")]
    values = [value.removeprefix(b" ") for name, value in fields if name == b"data"]
    return b"\n".join(values) if values else None
