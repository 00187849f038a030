"""Twice the requests that a cluster can answer, for minutes: what is accepted is answered, and memory stays flat."""

import asyncio
import itertools
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil

from deploy.bench.chaos.chaos_bench import NUM_CLIENTS, NUM_QUESTIONS, chaos_config
from deploy.bench.chaos.client import TIMEOUT_S, ask
from deploy.bench.chaos.memory import MemoryRow, MemoryWatch, growth
from deploy.bench.chaos.question import Question, questions
from deploy.bench.chaos.storm import MAX_ERRORS, ask_all, draws
from deploy.bench.chaos.victims import attached
from deploy.bench.chaos.wind import Processes
from deploy.bench.checks import at_least, at_most, exactly
from deploy.cluster import ClusterAddresses, Say, run_cluster
from deploy.cluster_processes import listeners
from router.text.tokenizer import TextCodec

OVERLOAD = 2.0  # times the capacity
CAPACITY_S = 30.0  # for which that is measured
HANG_TIMEOUT_S = 60.0
GROWTH = 0.05  # that is no growth: allocators keep what they have had
REFUSAL_MS = 50.0


@dataclass(slots=True)
class Offered:
    """What became of the requests of a soak.

    Attributes:
        answered: completely.
        refused: with status 429.
        refusal_ms: how long each of those took.
        failures: of all others.
    """

    answered: int = 0
    refused: int = 0
    refusal_ms: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class SoakBench:
    """What to measure.

    Attributes:
        duration_s: of the overload.
        seed: of what is asked when.
    """

    duration_s: float
    seed: int

    def run(self, model_dir: Path, say: Say) -> dict[str, Any]:
        """Starts a cluster, measures its capacity, offers it twice that, stops it."""
        # A machine that is overloaded holds workers up: one that waits for a core does not hang.
        config = replace(chaos_config(model_dir), hang_timeout_s=HANG_TIMEOUT_S)
        with run_cluster(config, model_dir, say) as cluster:
            to_ask = questions(config.model_name, TextCodec.load(model_dir), NUM_QUESTIONS)
            capacity = self._capacity(cluster.url, to_ask, say)
            say(f"{OVERLOAD:g} times its {capacity:.2f} requests/s for {self.duration_s:g} s")
            watch = MemoryWatch(cluster_processes(cluster))
            with watch.watching():
                offered = asyncio.run(self._overload(cluster.url, to_ask, OVERLOAD * capacity))
        return soak_result(capacity, offered, watch.rows)

    def _capacity(self, url: str, to_ask: Sequence[Question], say: Say) -> float:
        """Requests per second, answered to as many clients as there are places, each asking one after the other."""
        say(f"measuring the capacity for {CAPACITY_S:g} s")
        began_s = time.monotonic()
        drawn = draws(to_ask, self.seed, lambda _number: time.monotonic() < began_s + CAPACITY_S)
        ended = ask_all(url, drawn, 2 * NUM_CLIENTS, lambda _ended: None)
        return sum(each.answer is not None for each in ended) / (time.monotonic() - began_s)

    async def _overload(self, url: str, to_ask: Sequence[Question], rate_per_s: float) -> Offered:
        limits = httpx.Limits(max_connections=None)
        # Nothing dies here: who waits in a queue is not to ask a second time, which would be more load.
        async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, limits=limits, trust_env=False) as http:
            return await offer(http, to_ask, self.seed, rate_per_s, self.duration_s)


async def offer(
    http: httpx.AsyncClient, to_ask: Sequence[Question], seed: int, rate_per_s: float, duration_s: float
) -> Offered:
    """Asks at a steady rate, however many requests are under way, and waits for all to end."""
    offered = Offered()
    loop = asyncio.get_running_loop()
    began_s = loop.time()

    async def one(question: Question) -> None:
        sent_s = loop.time()
        ended = await ask(http, question)
        if ended.answer is not None:
            offered.answered += 1
        elif ended.status == HTTPStatus.TOO_MANY_REQUESTS:
            offered.refused += 1
            offered.refusal_ms.append(1000 * (loop.time() - sent_s))
        else:
            offered.failures.append(ended.failure)

    async with asyncio.TaskGroup() as group:
        drawn = draws(to_ask, seed, lambda number: number / rate_per_s < duration_s)
        for number, question in zip(itertools.count(), drawn, strict=False):
            await asyncio.sleep(began_s + number / rate_per_s - loop.time())
            group.create_task(one(question))
    return offered


def cluster_processes(cluster: ClusterAddresses) -> Processes:
    """Those of all workers and routers."""
    port = urlsplit(cluster.url).port
    assert port is not None, f"{cluster.url} names a port"
    routers = {f"router-{process.pid}": [process] for process in listeners(port, psutil.Process())}
    return {**attached(cluster.grpc_address), **routers}


def soak_result(capacity: float, offered: Offered, rows: Sequence[MemoryRow]) -> dict[str, Any]:
    """All figures, and the targets."""
    grown = growth(rows)
    refusal_ms = statistics.quantiles(offered.refusal_ms, n=100)[-1] if len(offered.refusal_ms) > 1 else 0.0
    return {
        "capacity_per_s": capacity,
        "answered": offered.answered,
        "refused": offered.refused,
        "refusal_ms_p99": refusal_ms,
        "failures": offered.failures[:MAX_ERRORS],
        "memory": [asdict(row) for row in rows],
        "memory_growth": grown,
        "checks": [
            at_least("refused", offered.refused, "requests", 1),
            exactly("failed", len(offered.failures), "requests", 0),
            at_most("refusal_ms_p99", refusal_ms, "ms", REFUSAL_MS),
            at_most("memory_growth", max(grown.values()), "of what was there", GROWTH),
        ],
    }
