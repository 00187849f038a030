"""What a load came to, predicted and measured, and how far one is from the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from core.errors import InternalError
from deploy.bench.checks import at_most

TOLERANCE = 0.15


@dataclass(frozen=True, slots=True)
class RequestTimes:
    """One answered request.

    Attributes:
        ttft_s: from being sent to its first token.
        tpot_s: mean time per token after it; None of an answer of one token.
    """

    ttft_s: float
    tpot_s: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """Of all requests of a load.

    Attributes:
        ttft_ms_p50: milliseconds.
        tpot_ms_p50: milliseconds.
        goodput: requests per second inside both limits.
    """

    ttft_ms_p50: float
    tpot_ms_p50: float
    goodput: float


def figures(times: Sequence[RequestTimes], ttft_limit_s: float, tpot_limit_s: float, span_s: float) -> Figures:
    """The figures of answered requests that were sent in `span_s` seconds.

    Raises:
        InternalError: there is none, or none with two tokens.
    """
    tpots_s = [each.tpot_s for each in times if each.tpot_s is not None]
    if not tpots_s:
        raise InternalError(f"of {len(times)} answers none has two tokens; nothing can be compared")
    num_inside = sum(each.ttft_s <= ttft_limit_s and (each.tpot_s or 0.0) <= tpot_limit_s for each in times)
    return Figures(1e3 * median(each.ttft_s for each in times), 1e3 * median(tpots_s), num_inside / span_s)


def error_checks(name: str, predicted: Figures, found: Figures) -> list[dict[str, Any]]:
    """One for each figure: the distance between both, as a share of what was measured."""
    return [
        at_most(f"{name}_{figure}_error", distance(predicted, found, figure), "of what was measured", TOLERANCE)
        for figure in Figures.__slots__
    ]


def distance(predicted: Figures, found: Figures, figure: str) -> float:
    """How far a prediction is from what was measured, as a share of it; never negative."""
    measured: float = getattr(found, figure)
    expected: float = getattr(predicted, figure)
    return abs(expected - measured) / measured if measured else float(expected != measured)
