"""What a registry shows, read as Prometheus reads it."""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families


def families_of(registry: CollectorRegistry) -> dict[str, Metric]:
    """Families by name, from the text that is served."""
    return {family.name: family for family in text_string_to_metric_families(generate_latest(registry).decode())}


def values_of(registry: CollectorRegistry, name: str, **labels: str) -> dict[tuple[str, ...], float]:
    """Values of a sample, by those of its labels that are not given."""
    found: dict[tuple[str, ...], float] = {}
    for family in families_of(registry).values():
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                found[_rest(sample.labels, labels)] = sample.value
    return found


def _rest(labels: Mapping[str, str], given: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(value for name, value in labels.items() if name not in given)
