"""How long streams stood still while roles changed. Arithmetic over the times at which their tokens came."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from deploy.bench.stream_record import StreamRecord

ITL_FACTOR = 3.0
LEAST_LIMIT_S = 0.150
"""A gap may be `ITL_FACTOR` times the stream's median, or this where that is less."""


@dataclass(frozen=True, slots=True)
class Gap:
    """The longest time between two tokens of one stream.

    Attributes:
        gap_s: its length.
        limit_s: what it may be for this stream.
    """

    gap_s: float
    limit_s: float

    @property
    def ratio(self) -> float:
        """At most 1 when it is inside the limit."""
        return self.gap_s / self.limit_s


def inter_token_times(times_s: Sequence[float]) -> list[float]:
    """Seconds between each piece of a stream and the next."""
    return [after - before for before, after in pairwise(times_s)]


def longest_gap(times_s: Sequence[float], begin_s: float, end_s: float) -> Gap | None:
    """The longest gap of a stream that was under way at any time between `begin_s` and `end_s`.

        times   |    |    |         |    |
        window             [ ....... )
        counted           |<------->|

    None for a stream that had no token before `begin_s` or none after: it did not run through the window's beginning.
    """
    if not times_s or times_s[0] > begin_s or times_s[-1] <= begin_s:
        return None
    counted = [after - before for before, after in pairwise(times_s) if after > begin_s and before < end_s]
    limit_s = max(ITL_FACTOR * statistics.median(inter_token_times(times_s)), LEAST_LIMIT_S)
    return Gap(max(counted), limit_s)


def worst_gap(records: Iterable[StreamRecord], begin_s: float, end_s: float) -> Gap | None:
    """Of all streams that ran when the window began, the gap that is longest for its limit; None without such."""
    gaps = (longest_gap(record.times_s, begin_s, end_s) for record in records)
    return max((gap for gap in gaps if gap is not None), key=lambda gap: gap.ratio, default=None)


def median_itl_s(records: Iterable[StreamRecord]) -> float:
    """Median over all tokens of all streams; 0 when no stream has two."""
    times = [time_s for record in records for time_s in inter_token_times(record.times_s)]
    return statistics.median(times) if times else 0.0
