"""Percentiles of figures of which some may be missing, for what never came is later than anything."""

import math
from collections.abc import Iterable


def percentile(values: Iterable[float], share: float, num_all: int) -> float | None:
    """The smallest value that at least `share` of all do not exceed.

    Args:
        values: those there are.
        share: above 0, at most 1.
        num_all: how many there should be, at least as many as `values`; those missing count as the largest.

    Returns:
        None where it is one of those missing, or there are none at all.
    """
    known = sorted(values)
    rank = math.ceil(share * num_all)
    return known[rank - 1] if 1 <= rank <= len(known) else None
