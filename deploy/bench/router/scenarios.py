"""What is asked of a router's front ends, and which figures are taken from it. Each scenario is a few loads."""

from collections.abc import Iterable, Sequence
from typing import Any

from deploy.bench.checks import at_least, at_most
from deploy.bench.router.asking import Load
from deploy.bench.router.front_ends import FrontEnds
from deploy.bench.router.pace import Pace
from deploy.bench.router.run import Run, quantile

NUM_CLIENTS = 64
STEP_TOKENS = (1, 2, 4, 8, 16)
MANY_STREAMS = (128, 256, 512, 1024)
ANSWER_S = 2.0  # that a paced answer takes at most; its client then asks for the next
MAX_ANSWER_TOKENS = 4096
UNPACED_TOKENS = 256
KEEPS_UP = 0.95  # of what workers offer: the rest is clients between two answers
SHORT_TOKENS = 8  # of a stream of which only the first token counts
MIN_REQUESTS_PER_S = 3000.0
MIN_TOKENS_PER_S = 100_000.0
MAX_ADDED_MS = 1.2
MAX_EXCESS_MS = 2.0


class Scenarios:
    """Everything that is measured over one API.

    Args:
        front_ends: the router.
        api: `http` or `grpc`.
        seconds: that count of each load.
        step_s: of paced workers.
    """

    def __init__(self, front_ends: FrontEnds, api: str, seconds: float, step_s: float) -> None:
        self._front_ends = front_ends
        self._api = api
        self._seconds = seconds
        self._step_s = step_s

    def requests(self) -> Run:
        """Answers of one token."""
        return self._run("requests", Load(NUM_CLIENTS, 1, self._api == "grpc", self._seconds), Pace())

    def step_ladder(self) -> list[Run]:
        """64 streams, with more and more tokens in a step, until the router falls behind."""
        return self._climb((NUM_CLIENTS, step_tokens) for step_tokens in STEP_TOKENS)

    def stream_ladder(self) -> list[Run]:
        """More and more streams of one token in a step, likewise."""
        return self._climb((num_streams, 1) for num_streams in MANY_STREAMS)

    def unpaced(self) -> Run:
        """64 streams from workers that make the next step when the last has been sent."""
        return self._run("unpaced", Load(NUM_CLIENTS, UNPACED_TOKENS, True, self._seconds), Pace())

    def one_client(self) -> Run:
        """One request of one token at a time."""
        return self._run("one_client", Load(1, 1, self._api == "grpc", self._seconds), Pace())

    def one_stream(self) -> Run:
        """One stream at a time, on a connection that is kept and on new ones by turns."""
        return self._run("one_stream", Load(1, SHORT_TOKENS, True, self._seconds, has_fresh=True), Pace())

    def _climb(self, rungs: Iterable[tuple[int, int]]) -> list[Run]:
        runs: list[Run] = []
        for num_streams, step_tokens in rungs:
            num_steps = min(ANSWER_S, self._seconds) / self._step_s
            num_tokens = min(MAX_ANSWER_TOKENS, max(SHORT_TOKENS, int(step_tokens * num_steps)))
            load = Load(num_streams, num_tokens, True, self._seconds)
            runs.append(self._run(f"{num_streams}x{step_tokens}", load, Pace(self._step_s, step_tokens)))
            if not keeps_up(runs[-1]):
                break
        return runs

    def _run(self, name: str, load: Load, pace: Pace) -> Run:
        return self._front_ends.run(f"{self._api}-{name}", load, pace, self._api)


def keeps_up(run: Run) -> bool:
    """Whether the clients got what paced workers can generate."""
    offered = run.offered_tokens_per_s
    return offered is None or run.tokens_per_s >= KEEPS_UP * offered


def added_ms(run: Run) -> list[float]:
    """Milliseconds of each answer that it did not spend in a worker, of one client's answers."""
    pairs = zip(run.figures.duration_s, run.inside_s, strict=False)
    return [1000 * (duration_s - inside_s) for duration_s, inside_s in pairs]


def measure_http(scenarios: Scenarios) -> dict[str, Any]:
    """All figures of the HTTP API, with their targets."""
    requests, unpaced = scenarios.requests(), scenarios.unpaced()
    steps, streams = scenarios.step_ladder(), scenarios.stream_ladder()
    one_client, one_stream = scenarios.one_client(), scenarios.one_stream()
    added = added_ms(one_client)
    kept_ms, fresh_ms = (
        1000 * quantile(values, 0.5) for values in (one_stream.figures.ttft_s, one_stream.figures.fresh_ttft_s)
    )
    return {
        "runs": [run.to_json() for run in (requests, *steps, *streams, unpaced, one_client, one_stream)],
        "streamed_tokens_per_s_many_streams": fastest(streams),
        "streamed_tokens_per_s_unpaced": unpaced.tokens_per_s,
        "added_latency_p99_ms": quantile(added, 0.99),
        "stream_ttft_kept_ms_p50": kept_ms,
        "stream_ttft_fresh_ms_p50": fresh_ms,
        "checks": [
            at_least("requests_per_s", requests.answers_per_s, "1/s", MIN_REQUESTS_PER_S),
            at_least("streamed_tokens_per_s", fastest(steps), "1/s", MIN_TOKENS_PER_S),
            at_most("added_latency_p50_ms", quantile(added, 0.5), "ms", MAX_ADDED_MS),
            at_most("keep_alive_ttft_excess_ms", kept_ms - fresh_ms, "ms", MAX_EXCESS_MS),
        ],
    }


def measure_grpc(scenarios: Scenarios) -> dict[str, Any]:
    """All figures of the gRPC API, which has no targets."""
    requests, unpaced, one_client = scenarios.requests(), scenarios.unpaced(), scenarios.one_client()
    steps = scenarios.step_ladder()
    added = added_ms(one_client)
    return {
        "runs": [run.to_json() for run in (requests, *steps, unpaced, one_client)],
        "requests_per_s": requests.answers_per_s,
        "streamed_tokens_per_s": fastest(steps),
        "streamed_tokens_per_s_unpaced": unpaced.tokens_per_s,
        "added_latency_p50_ms": quantile(added, 0.5),
        "added_latency_p99_ms": quantile(added, 0.99),
    }


def fastest(runs: Sequence[Run]) -> float:
    """The most tokens per second that came in any of them."""
    return max(run.tokens_per_s for run in runs)
