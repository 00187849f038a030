"""Our counts beside those of Prometheus' own client: whoever scrapes must not tell the difference."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from router.observe.tallies import Buckets, Count, histogram
from tests.router.observe.exposed import families_of, values_of

BOUNDS = (0.001, 0.5, 1, 10)


class Shown(Collector):
    def __init__(self, *families: Metric) -> None:
        self._families = families

    def collect(self) -> tuple[Metric, ...]:
        return self._families


def registry_of(*families: Metric) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(Shown(*families))
    return registry


@given(st.lists(st.sampled_from([0.0, 0.001, 0.0011, 0.5, 0.7, 1.0, 9.0, 10.0, 10.5])))
def test_histogram_is_that_of_prometheus(seconds: list[float]) -> None:
    buckets, registry = Buckets(BOUNDS), CollectorRegistry()
    theirs = Histogram("h", "Some seconds.", registry=registry, buckets=BOUNDS)
    for each in seconds:
        buckets.observe(each)
        theirs.observe(each)
    ours = registry_of(histogram("h", "Some seconds.", buckets))
    for sample in ("h_bucket", "h_count"):
        assert values_of(ours, sample) == values_of(registry, sample)
    assert values_of(ours, "h_sum") == pytest.approx(values_of(registry, "h_sum"))


def test_count_without_labels_is_shown_before_anything_has_happened() -> None:
    count = Count("things", "Some things.")
    assert values_of(registry_of(count.family()), "things_total") == {(): 0}
    count.add(2)
    count.add(0.5)
    assert values_of(registry_of(count.family()), "things_total") == {(): 2.5}


def test_count_with_labels_has_what_has_happened() -> None:
    count = Count("things", "Some things.", "kind", "size")
    assert families_of(registry_of(count.family()))["things"].samples == []
    count.add(1, "a", "small")
    count.add(2, "a", "large")
    count.add(3, "a", "small")
    shown = values_of(registry_of(count.family()), "things_total")
    assert shown == {("a", "small"): 4, ("a", "large"): 2}
