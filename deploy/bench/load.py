"""Closed-loop clients against a running cluster, timed as a client sees it: over HTTP, by server-sent events."""

import asyncio
import statistics
import time
from dataclasses import dataclass
from typing import Any

import httpx

from core.errors import InternalError
from deploy.bench.stream_record import record_http

REQUEST_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class RequestTiming:
    """One streamed answer.

    Attributes:
        ttft_s: from sending the request to its first text.
        duration_s: from sending the request to its last text.
        num_prompt_tokens: as the server counted them.
        num_tokens: generated, as the server counted them.
    """

    ttft_s: float
    duration_s: float
    num_prompt_tokens: int
    num_tokens: int

    @property
    def tpot_s(self) -> float:
        """Mean seconds per token after the first."""
        return (self.duration_s - self.ttft_s) / max(1, self.num_tokens - 1)


@dataclass(frozen=True, slots=True)
class LoadResult:
    """A run of several clients, each asking one request after the other.

    Attributes:
        num_clients: at once.
        num_requests: in all.
        prompt_tokens: of one request, median.
        output_tokens: of one answer, median.
        ttft_ms_p50: median time to first token.
        tpot_ms_p50: median over requests of the mean time per token after the first.
        output_tokens_per_s: of all clients together, over the whole run.
    """

    num_clients: int
    num_requests: int
    prompt_tokens: float
    output_tokens: float
    ttft_ms_p50: float
    tpot_ms_p50: float
    output_tokens_per_s: float


def greedy_body(model: str, text: str, max_tokens: int) -> dict[str, Any]:
    """A chat request whose answer has exactly `max_tokens` tokens, the same ones every time."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
    }


async def run_clients(url: str, bodies: list[list[dict[str, Any]]]) -> LoadResult:
    """Runs one client per list of request bodies, all at once.

    Raises:
        InternalError: a request failed; a benchmark with failures is worth nothing.
    """
    limits = httpx.Limits(max_connections=len(bodies))
    async with httpx.AsyncClient(base_url=url, timeout=REQUEST_TIMEOUT_S, limits=limits, trust_env=False) as client:
        started_s = time.perf_counter()
        runs = await asyncio.gather(*(run_client(client, own) for own in bodies))
        duration_s = time.perf_counter() - started_s
    timings = [timing for run in runs for timing in run]
    return LoadResult(
        num_clients=len(bodies),
        num_requests=len(timings),
        prompt_tokens=statistics.median(t.num_prompt_tokens for t in timings),
        output_tokens=statistics.median(t.num_tokens for t in timings),
        ttft_ms_p50=1000 * statistics.median(t.ttft_s for t in timings),
        tpot_ms_p50=1000 * statistics.median(t.tpot_s for t in timings),
        output_tokens_per_s=sum(t.num_tokens for t in timings) / duration_s,
    )


async def run_client(client: httpx.AsyncClient, bodies: list[dict[str, Any]]) -> list[RequestTiming]:
    """Asks one request after the other."""
    return [await timed_request(client, body) for body in bodies]


async def timed_request(client: httpx.AsyncClient, body: dict[str, Any]) -> RequestTiming:
    """Streams one answer."""
    record = await record_http(client, body)
    if record.failure:
        raise InternalError(f"a request of the benchmark failed: {record.failure}")
    duration_s = record.times_s[-1] - record.sent_s
    return RequestTiming(record.ttft_s, duration_s, record.num_prompt_tokens, record.num_tokens)
