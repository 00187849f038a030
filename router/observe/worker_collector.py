"""Prometheus metrics of workers, made of what each has last reported. Workers and routers pay nothing for them.

Every router tells them of every worker that it is attached to.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from core.events import WorkerLoad
from core.request import Role
from core.transfers import PairReport
from router.fleet.fleet import Fleet
from router.fleet.link import WorkerLink
from router.observe.families import counter, gauge

PREFIX = "baton_worker_"


@dataclass(frozen=True, slots=True)
class LoadMetric:
    """A field of `WorkerLoad` as a metric.

    Attributes:
        name: without prefix, and without `_total`.
        field: of `WorkerLoad`.
        meaning: in a sentence.
    """

    name: str
    field: str
    meaning: str


GAUGES = (
    LoadMetric("queued_prompts", "queued_prompts", "Prompts accepted and not started."),
    LoadMetric("pending_prompt_tokens", "pending_prompt_tokens", "Tokens of accepted prompts still to be computed."),
    LoadMetric("running_sequences", "running_sequences", "Sequences that are generating."),
    LoadMetric("running_context_tokens", "running_context_tokens", "Tokens that they attend to in a step."),
    LoadMetric("incoming_handoffs", "incoming_handoffs", "Handoffs announced or under way, not running yet."),
    LoadMetric("open_migrations", "migrations_open", "Sequences on their way to another worker."),
    LoadMetric("kv_capacity_blocks", "blocks_total", "KV blocks of the pool."),
    LoadMetric("kv_host_blocks", "host_blocks", "Evicted KV blocks in host memory."),
    LoadMetric(
        "longest_migration_pause_seconds",
        "migration_longest_pause_s",
        "The longest time that a sequence stood still in a migration.",
    ),
)
COUNTERS = (
    LoadMetric("steps", "steps", "Engine steps."),
    LoadMetric("prompt_tokens_computed", "prompt_tokens_computed", "Prompt tokens computed."),
    LoadMetric("decode_tokens_computed", "decode_tokens_computed", "Tokens generated in decode steps."),
    LoadMetric("handoffs_sent", "handoffs_sent", "Handoffs that their targets took over."),
    LoadMetric("handoffs_received", "handoffs_received", "Handoffs taken over, migrations included."),
    LoadMetric("handoff_bytes", "handoff_bytes", "Bytes of KV written to peers in handoffs."),
    LoadMetric("handoff_saved_bytes", "handoff_bytes_saved", "Bytes not written, because peers had the blocks."),
    LoadMetric(
        "handoff_write_seconds", "handoff_write_s", "Time in which KV of a handoff was under way, summed over them."
    ),
    LoadMetric(
        "handoff_exposed_seconds",
        "handoff_exposed_s",
        "From the last prompt token to the target's acknowledgement, summed over handoffs.",
    ),
    LoadMetric("migrations_sent", "migrations_sent", "Running sequences that went on elsewhere."),
    LoadMetric("migrations_received", "migrations_received", "Running sequences that came from elsewhere."),
    LoadMetric(
        "migrations_failed", "migrations_failed", "Those that were to go and stayed, or of which nobody knows."
    ),
    LoadMetric("migration_pause_seconds", "migration_pause_s", "Time in which migrating sequences stood still."),
    LoadMetric("prefix_query_tokens", "prefix_query_tokens", "Tokens of the prompts computed here."),
    LoadMetric("prefix_hit_tokens", "prefix_hit_tokens", "Those of them whose KV was found, not computed."),
    LoadMetric("prefix_fetches", "prefix_fetches", "Beginnings of prompts to be fetched from peers."),
    LoadMetric("prefix_fetches_failed", "prefix_fetches_failed", "Those of them of which nothing came in time."),
    LoadMetric("prefix_fetched_tokens", "prefix_tokens_fetched", "Tokens that did come."),
    LoadMetric("prefix_fetched_bytes", "prefix_bytes_fetched", "Bytes that did come."),
    LoadMetric("prefix_fetch_seconds", "prefix_fetch_s", "Time in which they were under way, summed over fetches."),
    LoadMetric("kv_evicted_blocks", "blocks_evicted", "Cached KV blocks that had to make room."),
    LoadMetric("kv_host_restored_blocks", "host_blocks_restored", "KV blocks that came back from host memory."),
    LoadMetric(
        "kv_host_dropped_blocks", "host_blocks_dropped", "Evicted KV blocks that host memory had no room for."
    ),
)
KV_STATES = {
    "free": "blocks_free",
    "cached": "blocks_cached",
    "running": "blocks_running",
    "leased": "blocks_leased",
    "quarantined": "blocks_quarantined",
}
COST_ERRORS = {Role.PREFILL: "prefill_cost_error", Role.DECODE: "decode_cost_error"}


class WorkerCollector(Collector):
    """Runs on the event loop, as the fleet does.

    Args:
        fleet: the workers.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def collect(self) -> Iterator[Metric]:
        """All of them, of all attached workers."""
        links = self._fleet.links()
        yield from _load_metrics(links)
        yield from self._states(links)
        yield from _transfers(links)

    def _states(self, links: Sequence[WorkerLink]) -> Iterator[Metric]:
        yield gauge(
            f"{PREFIX}role",
            "1 for the role of the worker, 0 for the others.",
            ["worker", "role"],
            (((link.worker.name, role), link.role_state.role is role) for link in links for role in Role),
        )
        for name, meaning, value in (
            ("cordoned", "1 if the worker gets no new work.", lambda link: link.role_state.is_cordoned),
            ("silent_seconds", "Since the worker was last heard.", self._fleet.silent_s),
        ):
            yield gauge(f"{PREFIX}{name}", meaning, ["worker"], _of_each(links, value))
        yield counter(
            f"{PREFIX}role_changes",
            "Changes of role since the worker started.",
            ["worker"],
            _of_each(links, lambda link: link.role_state.epoch - 1),
        )


def _load_metrics(links: Sequence[WorkerLink]) -> Iterator[Metric]:
    for make, metrics in ((gauge, GAUGES), (counter, COUNTERS)):
        for metric in metrics:
            samples = [((link.worker.name,), getattr(link.load, metric.field)) for link in links]
            yield make(f"{PREFIX}{metric.name}", metric.meaning, ["worker"], samples)
    yield gauge(f"{PREFIX}kv_blocks", "KV blocks of the pool by state.", ["worker", "state"], _by(links, KV_STATES))
    yield gauge(
        f"{PREFIX}step_prediction_error_ratio",
        "Median of |predicted - real| / real over the latest steps with work of the half.",
        ["worker", "half"],
        _by(links, COST_ERRORS),
    )


def _by(links: Sequence[WorkerLink], fields: dict[str, str] | dict[Role, str]) -> Iterator[tuple[list[str], float]]:
    for link in links:
        for label, field in fields.items():
            yield [link.worker.name, label], _number(link.load, field)


def _number(load: WorkerLoad, field: str) -> float:
    number: float = getattr(load, field)
    return number


def _of_each(links: Iterable[WorkerLink], value: Callable[[WorkerLink], float]) -> Iterator[tuple[tuple[str], float]]:
    return (((link.worker.name,), value(link)) for link in links)


def _transfers(links: Sequence[WorkerLink]) -> Iterator[Metric]:
    """What goes wrong between workers, whichever end has found it."""
    yield counter(
        f"{PREFIX}transfer_retries",
        "Moves of KV that were tried again over another transport.",
        ["worker"],
        _of_each(links, lambda link: sum(pair.stats.num_retried for pair in _pairs(link))),
    )
    yield counter(
        f"{PREFIX}expired_leases",
        "Leases on KV blocks that nobody renewed.",
        ["worker"],
        _of_each(links, lambda link: sum(pair.stats.num_expired_leases for pair in _pairs(link))),
    )
    failures = [((link.worker.name, code), number) for link in links for code, number in _failures(link).items()]
    yield counter(f"{PREFIX}handoff_failures", "Handoffs that failed, by reason.", ["worker", "code"], failures)


def _pairs(link: WorkerLink) -> tuple[PairReport, ...]:
    return (*link.transfers.sent, *link.transfers.received)


def _failures(link: WorkerLink) -> Counter[str]:
    failures: Counter[str] = Counter()
    for pair in _pairs(link):
        failures.update(pair.stats.failures)
    return failures
