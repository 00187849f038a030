"""What it costs to choose workers for a request, by their number and by the blocks in the prefix index.

Runs in a process of its own, `python -m deploy.bench.router.decisions`, one for each number of workers: what the
index takes is how much the process has grown by it.
"""

import asyncio
import gc
import os
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import psutil
import uvloop

from core.clock import SystemClock
from core.errors import InternalError
from deploy.bench.jobs import answer_job
from deploy.bench.router.synthetic_fleet import PaperCluster
from router.dispatch.dispatcher import FleetDispatcher
from router.generation import Generation
from router.observe.request_times import RequestWatch
from router.roles.snapshot import Limits

BATCH = 64  # decisions, and as many reports of new loads, that are timed together
UNDER_WAY = 512  # requests that have been placed and not ended, as the books have them


@dataclass(slots=True)
class Spent:
    """CPU seconds of this thread, and what they were spent on.

    Attributes:
        decisions_s: on requests that came.
        reports_s: on loads that workers reported, with no token in them.
        num: of each.
    """

    decisions_s: float = 0.0
    reports_s: float = 0.0
    num: int = 0


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Decisions among `num_workers`, with each number of `blocks` in the index, for `seconds` each."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_measure(job["num_workers"], job["blocks"], job["seconds"]))


async def _measure(num_workers: int, blocks: list[int], seconds: float) -> dict[str, Any]:
    watch = RequestWatch(SystemClock(), Limits(2.0, 0.1))
    dispatcher = FleetDispatcher(request_timeout_s=600.0, placement_timeout_s=30.0, max_attempts=8, watch=watch)
    cluster = PaperCluster(num_workers, dispatcher)
    num_before, grown_bytes = cluster.fleet.prefixes.num_names, 0
    series = []
    for num_blocks in blocks:
        rss_bytes = _rss_bytes()
        cluster.fill(num_blocks)
        grown_bytes += _rss_bytes() - rss_bytes
        num_names = cluster.fleet.prefixes.num_names
        spent = await _decide(cluster, dispatcher, seconds)
        series.append(
            {
                "workers": num_workers,
                "blocks": num_names,
                "us_per_decision": 1e6 * spent.decisions_s / spent.num,
                "decisions_per_s": spent.num / spent.decisions_s,
                "us_per_report": 1e6 * spent.reports_s / spent.num,
                "bytes_per_block": grown_bytes / max(1, num_names - num_before),
            }
        )
    return {"series": series}


async def _decide(cluster: PaperCluster, dispatcher: FleetDispatcher, seconds: float) -> Spent:
    """Many rounds, once as many requests are under way as there are to be."""
    under_way: deque[Generation] = deque()
    before, spent = Spent(), Spent()
    while before.num < UNDER_WAY:
        await _round(cluster, dispatcher, under_way, before)
    while spent.decisions_s < seconds:
        await _round(cluster, dispatcher, under_way, spent)
    while under_way:
        under_way.popleft().cancel()
    return spent


async def _round(
    cluster: PaperCluster, dispatcher: FleetDispatcher, under_way: deque[Generation], spent: Spent
) -> None:
    """Requests come, and for each of them a worker reports another load; old ones end.

    Raises:
        InternalError: a request was given no worker.
    """
    reports, requests = cluster.reports(BATCH), cluster.requests(BATCH)
    began_s = time.thread_time()
    for link, load in reports:
        link.say(load, cluster.fleet)
    heard_s = time.thread_time()
    under_way.extend([dispatcher.submit(request) for request in requests])
    spent.decisions_s += time.thread_time() - heard_s
    spent.reports_s += heard_s - began_s
    spent.num += BATCH
    if dispatcher.num_waiting:
        raise InternalError(f"{dispatcher.num_waiting} of {BATCH} requests have no worker: nothing was decided")
    while len(under_way) > UNDER_WAY:
        under_way.popleft().cancel()
    await asyncio.sleep(0)


def _rss_bytes() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


if __name__ == "__main__":
    answer_job(measure)
