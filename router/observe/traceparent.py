"""The `traceparent` of a request: which trace it is a part of (W3C Trace Context, level 1). No OpenTelemetry here."""

import re
from dataclasses import dataclass

import xxhash

TRACE_HEADER = "traceparent"
_FORMAT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_MAX_CHARS = 512  # of a later version's; this one's has 55
_SAMPLED = 1


@dataclass(frozen=True, slots=True)
class TraceParent:
    """A span of the client's.

    Attributes:
        trace_id: 128 bits, not 0.
        span_id: 64 bits, not 0.
        is_sampled: whether the client records it.
    """

    trace_id: int
    span_id: int
    is_sampled: bool

    @classmethod
    def parse(cls, header: str | None) -> "TraceParent | None":
        """What a header says; None for none and, as the standard wants it, for one that is not valid."""
        found = _FORMAT.fullmatch(header.strip()) if header and len(header) <= _MAX_CHARS else None
        if found is None:
            return None
        version, trace, span, flags, rest = found.groups()
        trace_id, span_id = int(trace, 16), int(span, 16)
        if version == "ff" or (version == "00" and rest) or not trace_id or not span_id:
            return None
        return cls(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def trace_id_of(request_id: str, parent: TraceParent | None) -> int:
    """The trace of a request, 128 bits: the client's, or one of its own that every router finds again."""
    return parent.trace_id if parent else xxhash.xxh3_128_intdigest(request_id.encode()) or 1
