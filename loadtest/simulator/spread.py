"""How a time spreads over many requests: a histogram of buckets 1 % apart, some kilobytes for millions."""

import math
from collections import Counter

STEP = 1.01  # from one bucket to the next: what a percentile may be off by
_LOG_STEP = math.log(STEP)


class Spread:
    """Counts seconds above 0 by size; 0 counts, too."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self._num_zeros = 0
        self._total = 0

    def __len__(self) -> int:
        """Times counted."""
        return self._total

    def add(self, seconds: float) -> None:
        """Counts a time, not below 0."""
        self._total += 1
        if seconds > 0:
            self._buckets[math.ceil(math.log(seconds) / _LOG_STEP)] += 1
        else:
            self._num_zeros += 1

    def at(self, share: float) -> float | None:
        """The time that a share of all did not exceed, at most 1 % too long; None without any."""
        if not self._total:
            return None
        num_left = max(1, math.ceil(share * self._total)) - self._num_zeros
        if num_left <= 0:
            return 0.0
        for bucket in sorted(self._buckets):
            num_left -= self._buckets[bucket]
            if num_left <= 0:
                return float(STEP**bucket)
        raise AssertionError(f"{share} of {self._total} times is more than all of them")
