"""Metric families that are made of what is known already, at the moment when somebody asks for them."""

from collections.abc import Iterable, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

PREFIX = "baton_router_"
"""Of the names of metrics that are about a router, not about one of its workers."""

Samples = Iterable[tuple[Sequence[str], float]]
"""Values of the labels, and the number."""


def gauge(name: str, meaning: str, labels: Sequence[str], samples: Samples) -> Metric:
    """What goes up and down."""
    return _filled(GaugeMetricFamily(name, meaning, labels=labels), samples)


def counter(name: str, meaning: str, labels: Sequence[str], samples: Samples) -> Metric:
    """What only grows until the process it is about restarts; `_total` is added to the name."""
    return _filled(CounterMetricFamily(name, meaning, labels=labels), samples)


def _filled(family: CounterMetricFamily | GaugeMetricFamily, samples: Samples) -> Metric:
    for labels, value in samples:
        family.add_metric(list(labels), value)
    return family
