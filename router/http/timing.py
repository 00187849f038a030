"""Telling an HTTP client where the time of its answer has gone, in a header or in its stream."""

from router.observe.phases import Phases
from router.observe.timing import TIMING_HEADER


def timing_headers(phases: Phases | None) -> tuple[tuple[bytes, bytes], ...]:
    """The header of a whole answer; none without phases."""
    return () if phases is None else ((TIMING_HEADER.encode(), phases.server_timing().encode()),)


def timing_comment(phases: Phases | None) -> bytes:
    """The first line of a stream's last event, for its headers are long sent; nothing without phases.

    A comment, which the SSE standard has clients ignore: a named event of its own breaks those that take every event
    for a chunk. It has no event for itself, because OpenAI's SDK takes one without data for a chunk once it has read
    an `id`.
    """
    return b"" if phases is None else f": {TIMING_HEADER} {phases.server_timing()}\n".encode()
