"""Telling an HTTP client where the time of its answer has gone, in a header or in its stream."""

from router.observe.phases import Phases
from router.observe.timing import TIMING_HEADER


def timing_headers(phases: Phases | None) -> tuple[tuple[bytes, bytes], ...]:
    """The header of a whole answer; none without phases."""
    return () if phases is None else ((TIMING_HEADER.encode(), phases.server_timing().encode()),)


def timing_comment(phases: Phases | None) -> bytes:
    """The same behind the last chunk of a stream, whose headers are long sent; nothing without phases.

    A comment, which the SSE standard has clients ignore: a named event of its own breaks those that take every event
    for a chunk.
    """
    return b"" if phases is None else f": {TIMING_HEADER} {phases.server_timing()}\n\n".encode()
