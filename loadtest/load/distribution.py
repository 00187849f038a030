"""What many times look like in a few numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MILLISECONDS = 1e3


@dataclass(frozen=True, slots=True)
class Distribution:
    """Of times in milliseconds; percentiles are interpolated between neighbours, as numpy's default does."""

    mean: float
    p50: float
    p90: float
    p99: float
    max: float


def distribution_ms(seconds: Sequence[float] | npt.NDArray[np.float64]) -> Distribution | None:
    """Of times given in seconds; None of no times."""
    if len(seconds) == 0:
        return None
    times = np.asarray(seconds) * MILLISECONDS
    p50, p90, p99 = np.percentile(times, (50, 90, 99))
    return Distribution(float(times.mean()), float(p50), float(p90), float(p99), float(times.max()))
