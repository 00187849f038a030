"""Counts and histograms that are kept on the event loop, and made into Prometheus' families when somebody asks.

Prometheus' own client takes a lock for every number and looks through all buckets: 20 us for one short request.
"""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.utils import floatToGoString

from router.observe.families import counter


class Count:
    """What only grows, for each of the values of some labels.

    Args:
        name: of the metric; `_total` is added to it.
        meaning: for people.
        labels: names of them; without any there is one number, which is shown from the start.
    """

    def __init__(self, name: str, meaning: str, *labels: str) -> None:
        self._name = name
        self._meaning = meaning
        self._labels = labels
        self._amounts: Counter[tuple[str, ...]] = Counter() if labels else Counter({(): 0})

    def add(self, amount: float, *labels: str) -> None:
        """Something has happened; one value for each label."""
        self._amounts[labels] += amount  # type: ignore[assignment] # a Counter's values may be any numbers

    def family(self) -> Metric:
        """As Prometheus reads it."""
        return counter(self._name, self._meaning, self._labels, self._amounts.items())


class Buckets:
    """How many of some seconds were at most so long, for each bound.

    Args:
        bounds: ascending, seconds; one without end is added.
    """

    __slots__ = ("_bounds", "_counts", "_total_s")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = (*bounds, math.inf)
        self._counts = [0] * len(self._bounds)
        self._total_s = 0.0

    def observe(self, seconds: float) -> None:
        """Something has taken so long."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._total_s += seconds

    def samples(self) -> tuple[list[tuple[str, float]], float]:
        """Each bound with the count of all up to it, and the sum of the seconds."""
        names = map(floatToGoString, self._bounds)
        return list(zip(names, accumulate(self._counts), strict=True)), self._total_s


def histogram(name: str, meaning: str, buckets: Buckets) -> Metric:
    """One histogram as Prometheus reads it."""
    return labelled_histogram(name, meaning, (), (((), buckets),))


def labelled_histogram(
    name: str, meaning: str, labels: Sequence[str], samples: Iterable[tuple[Sequence[str], Buckets]]
) -> Metric:
    """One for each of some values of labels."""
    family = HistogramMetricFamily(name, meaning, labels=labels)
    for values, buckets in samples:
        family.add_metric(list(values), *buckets.samples())
    return family
