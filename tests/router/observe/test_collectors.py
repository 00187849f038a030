import dataclasses

import pytest
from prometheus_client import CollectorRegistry

from core.clock import ManualClock
from core.events import WorkerLoad
from core.ids import WorkerId
from core.request import Role
from core.roles import RoleState
from core.transfers import PairReport, PairStats, TransferReport
from router.observe.router_collector import RouterCollector
from router.observe.worker_collector import COST_ERRORS, COUNTERS, GAUGES, KV_STATES, WorkerCollector
from tests.router.builders import MemoryFleet, RecordingLink, generation_request, worker_hello
from tests.router.dispatch.bench import Bench
from tests.router.observe.exposed import families_of, values_of

# Fields of a report that say what another metric says, or mean something to routers only.
NOT_SHOWN = {
    "blocks_free_together", "prefill_cost_change", "prefill_attention_cost_change", "decode_cost_change",
    "decode_attention_cost_change", "role_epoch", "epoch_steps", "epoch_prompt_tokens", "epoch_decode_tokens",
    "epoch_first_work_s",
}  # fmt: skip


@dataclasses.dataclass
class Alone:
    """A router that shares its state with nobody, or cannot."""

    is_leader: bool = True
    trouble: str | None = None


def shown(*links: RecordingLink) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(WorkerCollector(MemoryFleet(*links)))
    return registry


def value(registry: CollectorRegistry, name: str) -> float:
    (number,) = values_of(registry, name).values()
    return number


def test_every_field_of_a_report_is_a_metric_or_known_to_be_none() -> None:
    shown_fields = [metric.field for metric in (*GAUGES, *COUNTERS)] + [*KV_STATES.values(), *COST_ERRORS.values()]
    assert len(shown_fields) == len(set(shown_fields))
    assert {field.name for field in dataclasses.fields(WorkerLoad)} == set(shown_fields) | NOT_SHOWN


@pytest.mark.parametrize("kind", ["gauges", "counters"])
def test_metrics_of_a_report_have_its_numbers(kind: str) -> None:
    link = RecordingLink("p", Role.PREFILL)
    metrics = {"gauges": GAUGES, "counters": COUNTERS}[kind]
    numbers = {metric.field: index for index, metric in enumerate(metrics, start=1)}
    link.load = WorkerLoad(**numbers)
    registry, suffix = shown(link), {"gauges": "", "counters": "_total"}[kind]
    for metric in metrics:
        found = values_of(registry, f"baton_worker_{metric.name}{suffix}")
        assert found == {("p",): numbers[metric.field]}


def test_blocks_are_told_by_state() -> None:
    link = RecordingLink("d", Role.DECODE)
    link.load = WorkerLoad(blocks_free=1, blocks_cached=2, blocks_running=3, blocks_leased=4, blocks_quarantined=5)
    assert values_of(shown(link), "baton_worker_kv_blocks", worker="d") == {
        ("free",): 1, ("cached",): 2, ("running",): 3, ("leased",): 4, ("quarantined",): 5,
    }  # fmt: skip


def test_worker_is_for_one_role_and_says_how_often_that_changed() -> None:
    link = RecordingLink("w", Role.MIXED)
    link.hello = worker_hello(link.endpoint, Role.MIXED, role_state=RoleState(Role.MIXED, epoch=4, is_cordoned=True))
    registry = shown(link)
    roles = values_of(registry, "baton_worker_role", worker="w")
    assert roles == {("prefill",): 0, ("decode",): 0, ("mixed",): 1}
    assert value(registry, "baton_worker_role_changes_total") == 3
    assert value(registry, "baton_worker_cordoned") == 1
    assert value(registry, "baton_worker_silent_seconds") == 0.25


def test_what_went_wrong_is_added_up_over_peers_and_both_ends() -> None:
    link = RecordingLink("p", Role.PREFILL)
    sent = PairReport(WorkerId("d1", 1), "push", PairStats(num_retried=1, failures={"kv_corrupt": 2}))
    other = PairReport(WorkerId("d2", 1), "push", PairStats(num_retried=2, failures={"kv_corrupt": 1}))
    received = PairReport(WorkerId("d2", 1), "push", PairStats(num_expired_leases=4, failures={"peer_lost": 1}))
    link.transfers = TransferReport((sent, other), (received,))
    registry = shown(link)
    assert value(registry, "baton_worker_transfer_retries_total") == 3
    assert value(registry, "baton_worker_expired_leases_total") == 4
    failures = values_of(registry, "baton_worker_handoff_failures_total", worker="p")
    assert failures == {("kv_corrupt",): 3, ("peer_lost",): 1}


def test_worker_that_is_gone_is_shown_no_more() -> None:
    link = RecordingLink("p", Role.PREFILL)
    registry = shown(link)
    link.hello = None
    assert all(not family.samples for family in families_of(registry).values())


async def test_router_tells_what_it_has_to_do_and_what_it_has_done(bench: Bench) -> None:
    registry, clock = CollectorRegistry(), ManualClock()
    bench.submit(generation_request("a"))
    bench.submit(generation_request("b")).times.returned("preempted")
    registry.register(RouterCollector(bench.dispatcher, bench.watch.totals, Alone(), clock))
    assert value(registry, "baton_router_active_requests") == 2
    assert value(registry, "baton_router_waiting_requests") == 0
    assert value(registry, "baton_router_attempts_total") == 2
    bench.watch.arrived(generation_request("c")).refused(3, "ttft")
    assert values_of(registry, "baton_router_refusals_total") == {("ttft",): 1}
    assert values_of(registry, "baton_router_returns_total") == {("preempted",): 1}
    assert values_of(registry, "baton_router_workers") == {("prefill",): 1, ("decode",): 1, ("mixed",): 0}


@pytest.mark.parametrize(
    ("agreement", "is_leader", "is_up"), [(Alone(), 1, 1), (Alone(is_leader=False, trouble="away"), 0, 0)]
)
async def test_router_tells_whether_it_leads_and_the_shared_state_is_there(
    bench: Bench, agreement: Alone, is_leader: int, is_up: int
) -> None:
    registry = CollectorRegistry()
    registry.register(RouterCollector(bench.dispatcher, bench.watch.totals, agreement, ManualClock()))
    assert value(registry, "baton_router_leader") == is_leader
    assert value(registry, "baton_router_state_store_up") == is_up
