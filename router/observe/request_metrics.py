"""Prometheus metrics of requests, counted as they happen. Not what is only read when somebody asks: the collectors.

Labels have few values: kinds of API, outcomes, codes of errors, phases. Never a request, a client or a tenant.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from router.observe.call import Call
from router.observe.families import PREFIX
from router.observe.phases import Phases
from router.observe.request_times import RequestTimes
from router.observe.tallies import Buckets, Count, histogram, labelled_histogram

CALL_LABELS = ("api", "outcome", "code")

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


class RequestMetrics(Collector):
    """Implements `RequestObserver`; also hears of calls. On the token path, for each delta: two additions.

    Args:
        registry: which asks for the metrics, on the event loop.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._calls = _count("requests", "Calls of the API that have ended, refused ones included.", *CALL_LABELS)
        self._arrived_tokens = _count(
            "arrived_prompt_tokens", "Prompt tokens of requests that came, those then refused included."
        )
        self._uncached_tokens = _count(
            "arrived_uncached_tokens", "Those of them that no worker had cached, as far as the router knew."
        )
        self._prompt_tokens = _count("prompt_tokens", "Prompt tokens of answers that have begun.")
        self._cached_tokens = _count("cached_prompt_tokens", "Those of them whose KV was found, not computed.")
        self._answer_tokens = _count("answer_tokens", "Tokens of answers, as they come from workers.")
        self._ttft = Buckets(TTFT_BUCKETS)
        self._gap = Buckets(GAP_BUCKETS)
        self._tpot = Buckets(GAP_BUCKETS)
        self._whole = Buckets(REQUEST_BUCKETS)
        self._phases: dict[str, Buckets] = {}
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """All of them, as they are now."""
        for count in (
            self._calls,
            self._arrived_tokens,
            self._uncached_tokens,
            self._prompt_tokens,
            self._cached_tokens,
            self._answer_tokens,
        ):
            yield count.family()
        yield histogram(f"{PREFIX}ttft_seconds", "From a request's arrival to its first token.", self._ttft)
        yield histogram(
            f"{PREFIX}itl_seconds", "Between two deltas of an answer; most deltas are one token.", self._gap
        )
        yield histogram(
            f"{PREFIX}tpot_seconds", "Mean time per token after the first, of answers of several.", self._tpot
        )
        yield histogram(f"{PREFIX}request_seconds", "From a request's arrival to the end of its answer.", self._whole)
        phases = (((name,), buckets) for name, buckets in self._phases.items())
        yield labelled_histogram(f"{PREFIX}phase_seconds", "Phases of answered requests.", ("phase",), phases)

    def arrived(self, times: RequestTimes) -> None:
        """See `RequestObserver.arrived`."""
        self._arrived_tokens.add(times.num_prompt_tokens)

    def placed(self, times: RequestTimes, num_uncached_tokens: int) -> None:  # noqa: ARG002 - totals only
        """See `RequestObserver.placed`."""
        self._uncached_tokens.add(num_uncached_tokens)

    def received(self, times: RequestTimes, num_new_tokens: int, gap_s: float | None) -> None:
        """See `RequestObserver.received`."""
        self._answer_tokens.add(num_new_tokens)
        if gap_s is not None:
            self._gap.observe(gap_s)
        elif times.ttft_s is not None:
            self._ttft.observe(times.ttft_s)
            self._prompt_tokens.add(times.num_prompt_tokens)
            self._cached_tokens.add(times.num_cached_tokens)

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
        self._calls.add(1, call.api, outcome, code)

    def _observe_phases(self, phases: Phases) -> None:
        for name, seconds in phases.by_name().items():
            buckets = self._phases.get(name)
            if buckets is None:
                buckets = self._phases[name] = Buckets(TTFT_BUCKETS)
            buckets.observe(seconds)


def _count(name: str, meaning: str, *labels: str) -> Count:
    return Count(f"{PREFIX}{name}", meaning, *labels)
