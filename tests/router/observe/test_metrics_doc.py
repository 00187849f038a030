"""`docs/metrics.md` and what is exposed are the same."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric

from core.clock import ManualClock
from core.request import FinishReason
from core.transfers import PairReport, PairStats, TransferReport
from router.config import RouterConfig
from router.observe.observation import build_observation
from tests.builders import assignment
from tests.router.builders import LIMITS, generation_request, request_meter
from tests.router.dispatch.bench import Bench
from tests.router.observe.exposed import families_of
from tests.router.observe.test_collectors import Alone
from tests.router.observe.test_request_times import DECODED, PREFILLED, timed

DOC = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(baton_\w+)` \| (\w+) \| (.*?) \|", re.MULTILINE)
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


def documented() -> dict[str, tuple[str, set[str]]]:
    """Type and labels by name."""
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in ROW.findall(DOC)}


@pytest.fixture
async def exposed(bench: Bench, config: RouterConfig) -> dict[str, Metric]:
    """All families of a router whose metrics have a sample each, by the name in the document."""
    clock = ManualClock()
    observation = build_observation(replace(config, metrics_port=0), "router", clock, LIMITS, request_meter())
    observation.register(bench.dispatcher, Alone(), clock)
    assert observation.registry is not None
    with observation.calls.open("http", "POST /", {}):
        observation.watch.arrived(generation_request()).refused(3, "ttft")
        times, work = observation.watch.arrived(generation_request()), assignment("r.0")
        times.assigned(work)
        times.returned("preempted")
        times.assigned(work)
        times.timed(timed(work, 0, PREFILLED))
        times.received(1)
        times.timed(timed(work, 1, DECODED))
        times.received(2)
        times.answered(FinishReason.STOP)
    bench.link("p").transfers = TransferReport(
        (PairReport(bench.link("d").worker, "push", PairStats(failures={"kv_corrupt": 1})),)
    )
    families = families_of(observation.registry)
    return {
        name + ("_total" if family.type == "counter" else ""): family
        for name, family in families.items()
        if name.startswith("baton_")
    }


async def test_document_has_every_metric_and_no_other(exposed: dict[str, Metric]) -> None:
    assert documented().keys() == exposed.keys()


async def test_document_has_the_type_and_labels_of_each(exposed: dict[str, Metric]) -> None:
    for name, (kind, labels) in documented().items():
        family = exposed[name]
        assert family.samples, f"{name} has no sample to compare with"
        assert (name, kind, labels) == (name, family.type, set(family.samples[0].labels) - {"le"})


async def test_names_have_units_and_nothing_is_named_after_a_request(exposed: dict[str, Metric]) -> None:
    labels = {label for family in exposed.values() for sample in family.samples for label in sample.labels}
    assert labels == {"api", "outcome", "code", "reason", "phase", "role", "version", "worker", "half", "state", "le"}
    assert not [name for name in exposed if name.removesuffix("_total").endswith(("_s", "_ms", "_milliseconds"))]


def test_queries_of_the_document_name_metrics_that_are_there() -> None:
    names = set(re.findall(r"\b(baton_(?:router|worker)_\w+)", DOC.split("### To begin with")[1]))
    known = {name.removesuffix("_total") + s for name, (kind, _) in documented().items() for s in SUFFIXES[kind]}
    assert names <= known
