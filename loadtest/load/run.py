"""One run of a load from its first request to its last answer, with what happens beside it."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from loadtest.load.allowance import Allowance
from loadtest.load.client import Asker
from loadtest.load.conversation import Conversation
from loadtest.load.faults import Fault, FaultDoer, FaultRecord, do_faults
from loadtest.load.live import LiveView
from loadtest.load.load_clock import LoadClock, RunningClock
from loadtest.load.record import RequestRecord
from loadtest.load.sending import Sending

MakeAsker = Callable[[LoadClock, dict[str, str]], Asker]
"""Makes what sends a run's requests, of the run's clock; puts examples of failures into the dictionary."""
Watch = Callable[[LiveView], Coroutine[Any, Any, None]]
"""Shows a run as it goes, until it is cancelled."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What one run does.

    Attributes:
        name: for people.
        rate: requests per second of an open loop; None for a trace's own times, or a closed loop.
        concurrency: of a closed loop; None for an open one.
        num_requests: at most; None for as many as come in time.
        duration_s: nothing is sent that is due later; None for no such time.
    """

    name: str
    rate: float | None
    concurrency: int | None
    num_requests: int | None
    duration_s: float | None


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What became of a run.

    Attributes:
        plan: what it was to do.
        started_unix_s: when it began, by the wall clock.
        duration_s: until its last answer.
        cpu_share: of one core that the client's process used in that time.
        records: of all requests, those of the warm-up too.
        examples: of each kind of failure, what was said of the first.
        faults: by the times at which they began.
    """

    plan: RunPlan
    started_unix_s: float
    duration_s: float
    cpu_share: float
    records: list[RequestRecord]
    examples: dict[str, str]
    faults: list[FaultRecord] = field(default_factory=list)


async def run_load(
    plan: RunPlan,
    conversations: Iterator[Conversation],
    make_asker: MakeAsker,
    *,
    faults: Sequence[Fault],
    doer: FaultDoer | None,
    watch: Watch,
) -> RunOutcome:
    """Sends a run's requests and waits for all answers.

    Args:
        plan: how many, and how.
        conversations: with times for an open loop.
        make_asker: makes what sends them.
        faults: that happen meanwhile.
        doer: carries them out; None where there are none.
        watch: shows how it goes.
    """
    started_unix_s, began_cpu_s = time.time(), time.process_time()
    clock, examples, done = RunningClock(), dict[str, str](), list[FaultRecord]()
    allowance = Allowance(plan.num_requests, plan.duration_s)
    async with asyncio.TaskGroup() as group:
        with contextlib.closing(make_asker(clock, examples)) as asker:
            sending = Sending(asker, clock, allowance)
            beside = [group.create_task(watch(LiveView(sending.records, clock)))]
            if doer is not None:
                beside.append(group.create_task(do_faults(faults, doer, clock, done)))
            await _send(sending, plan, conversations)
        duration_s, cpu_s = clock.now_s(), time.process_time() - began_cpu_s
        for task in beside:
            task.cancel()
    done.sort(key=lambda fault: fault.at_s)
    return RunOutcome(plan, started_unix_s, duration_s, cpu_s / duration_s, sending.records, examples, done)


async def _send(sending: Sending, plan: RunPlan, conversations: Iterator[Conversation]) -> None:
    if plan.concurrency is None:
        await sending.open_loop(conversations)
    else:
        await sending.closed_loop(conversations, plan.concurrency)
