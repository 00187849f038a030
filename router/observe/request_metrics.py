"""Prometheus metrics of requests, counted as they happen. Not what is only read when somebody asks: the collectors.

Labels have few values: kinds of API, outcomes, codes of errors, phases. Never a request, a client or a tenant.
"""

from prometheus_client import CollectorRegistry, Counter, Histogram

from router.observe.call import Call
from router.observe.phases import Phases
from router.observe.request_times import RequestTimes

# Seconds. Those of vLLM (vllm/v1/metrics/loggers.py), so that dashboards compare; the first two begin like those of
# OpenTelemetry's conventions for generative AI. Gaps have three more below 10 ms, where small models are.
TTFT_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
)  # fmt: skip
GAP_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40,
    80,
)  # fmt: skip
REQUEST_BUCKETS = (
    0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680,
)  # fmt: skip


class RequestMetrics:
    """Implements `RequestObserver`; also hears of calls. On the token path, for each delta: two additions.

    Args:
        registry: where the metrics are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = _counter(
            registry, "requests", "Calls of the API that have ended, refused ones included.", "api", "outcome", "code"
        )
        self._arrived_tokens = _counter(
            registry, "arrived_prompt_tokens", "Prompt tokens of requests that came, those then refused included."
        )
        self._uncached_tokens = _counter(
            registry, "arrived_uncached_tokens", "Those of them that no worker had cached, as far as the router knew."
        )
        self._prompt_tokens = _counter(registry, "prompt_tokens", "Prompt tokens of answers that have begun.")
        self._cached_tokens = _counter(
            registry, "cached_prompt_tokens", "Those of them whose KV was found, not computed."
        )
        self._answer_tokens = _counter(registry, "answer_tokens", "Tokens of answers, as they come from workers.")
        self._ttft = _histogram(
            registry, "ttft_seconds", "From a request's arrival to its first token.", TTFT_BUCKETS
        )
        self._gap = _histogram(
            registry, "itl_seconds", "Between two deltas of an answer; most deltas are one token.", GAP_BUCKETS
        )
        self._tpot = _histogram(
            registry, "tpot_seconds", "Mean time per token after the first, of answers of several.", GAP_BUCKETS
        )
        self._whole = _histogram(
            registry, "request_seconds", "From a request's arrival to the end of its answer.", REQUEST_BUCKETS
        )
        self._phases = Histogram(
            "baton_router_phase_seconds",
            "Phases of answered requests.",
            ("phase",),
            registry=registry,
            buckets=TTFT_BUCKETS,
        )

    def arrived(self, times: RequestTimes) -> None:
        """See `RequestObserver.arrived`."""
        self._arrived_tokens.inc(times.num_prompt_tokens)

    def placed(self, times: RequestTimes, num_uncached_tokens: int) -> None:  # noqa: ARG002 - totals only
        """See `RequestObserver.placed`."""
        self._uncached_tokens.inc(num_uncached_tokens)

    def received(self, times: RequestTimes, num_new_tokens: int, gap_s: float | None) -> None:
        """See `RequestObserver.received`."""
        self._answer_tokens.inc(num_new_tokens)
        if gap_s is not None:
            self._gap.observe(gap_s)
        elif times.ttft_s is not None:
            self._ttft.observe(times.ttft_s)
            self._prompt_tokens.inc(times.num_prompt_tokens)
            self._cached_tokens.inc(times.num_cached_tokens)

    def ended(self, times: RequestTimes) -> None:
        """See `RequestObserver.ended`."""
        if not times.is_answered or times.ended_s is None:
            return
        self._whole.observe(times.ended_s - times.arrived_s)
        if times.tpot_s is not None:
            self._tpot.observe(times.tpot_s)
        if (phases := times.phases) is not None:
            self._observe_phases(phases)

    def called(self, call: Call, duration_s: float) -> None:  # noqa: ARG002 - answers are measured, not calls
        """A call has ended."""
        outcome, code = call.outcome
        self._calls.labels(call.api, outcome, code).inc()

    def _observe_phases(self, phases: Phases) -> None:
        for name, seconds in phases.by_name().items():
            self._phases.labels(name).observe(seconds)


def _counter(registry: CollectorRegistry, name: str, meaning: str, *labels: str) -> Counter:
    return Counter(f"baton_router_{name}", meaning, labels, registry=registry)


def _histogram(registry: CollectorRegistry, name: str, meaning: str, buckets: tuple[float, ...]) -> Histogram:
    return Histogram(f"baton_router_{name}", meaning, registry=registry, buckets=buckets)
