"""Telling an HTTP client where the time of its answer has gone, if it asked, in a header or in its stream."""

from router.http.openapi import header_parameter
from router.observe.call import TIMING_HEADER, phases_asked

TIMING_PARAMETER = header_parameter(
    TIMING_HEADER,
    "`1` has the answer say where its time went, as a Server-Timing header of the same name, or in a stream as a "
    "comment before `[DONE]`.",
)


def timing_headers() -> tuple[tuple[bytes, bytes], ...]:
    """The header of a whole answer to the current call; none when its client did not ask."""
    phases = phases_asked()
    return () if phases is None else ((TIMING_HEADER.encode(), phases.server_timing().encode()),)


def timing_comment() -> bytes:
    """The first line of a stream's last event, for its headers are long sent; nothing when its client did not ask.

    A comment, which the SSE standard has clients ignore: a named event of its own breaks those that take every event
    for a chunk. It has no event for itself, because OpenAI's SDK takes one without data for a chunk once it has read
    an `id`.
    """
    phases = phases_asked()
    return b"" if phases is None else f": {TIMING_HEADER} {phases.server_timing()}\n".encode()
