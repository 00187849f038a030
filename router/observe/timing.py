"""How a client asks where the time of its answer has gone, over HTTP as over gRPC. The answer: `Phases`."""

from collections.abc import Mapping

TIMING_HEADER = "x-baton-timing"
"""Of a request, `1` asks for it; of a response, it has the phases."""
_YES = frozenset({"1", "true"})


def wants_timing(headers: Mapping[str, str]) -> bool:
    """Whether a request asks for it; names of headers or metadata are in lower case."""
    return headers.get(TIMING_HEADER, "").lower() in _YES
