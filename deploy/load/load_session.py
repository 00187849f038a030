"""The runs of one load, one after the other: a sweep's rates or concurrencies, or one run."""

import asyncio
import resource
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import uvloop

from core.errors import ConfigError
from core.garbage import frozen_heap
from deploy.load.new_client import new_client
from deploy.results.this_machine import describe_machine
from loadtest.load.document import load_document, run_document
from loadtest.load.faults import Fault, FaultDoer
from loadtest.load.run import RunPlan, Watch, run_load
from loadtest.load.settings import DEFAULT_DURATION_S, LoadSettings
from loadtest.load.target import Target
from loadtest.report.document import Document, Run
from loadtest.workloads.settings import WorkloadSettings
from loadtest.workloads.workload import Workload

SPARE_FILES = 64  # beside connections: the terminal, logs, gRPC to the cluster


@dataclass(frozen=True, slots=True)
class LoadSession:
    """Sends the runs of a load.

    Attributes:
        target: who is asked.
        headers: of every request.
        tls: how the server is verified, over TLS.
        model: that is asked.
        settings: how.
        workload: what.
        faults: of each run.
        doer: carries them out; None where there are none.
        with_records: whether documents have all requests.
    """

    target: Target
    headers: Mapping[str, str]
    tls: ssl.SSLContext | None
    model: str
    settings: LoadSettings
    workload: Workload
    faults: Sequence[Fault]
    doer: FaultDoer | None
    with_records: bool

    def document(
        self, plans: Sequence[RunPlan], watch: Callable[[RunPlan], Watch], given: Mapping[str, object]
    ) -> Document:
        """Runs all of them; returns what became of them.

        Args:
            plans: in order, at least one.
            watch: shows one.
            given: flags that differ from the defaults, to be written down.
        """
        allow_connections(self.settings.max_open)
        with frozen_heap(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runs = [runner.run(self._run(number, plan, watch(plan))) for number, plan in enumerate(plans)]
        machine = {"client": describe_machine()}
        return load_document(runs, self.settings, url=self.target.url, model=self.model, given=given, machine=machine)

    async def _run(self, number: int, plan: RunPlan, watch: Watch) -> Run:
        loop = self.workload.closed_loop() if plan.concurrency else self.workload.open_loop(plan.rate)
        conversations = self.workload.conversations(loop, number)
        make = partial(new_client, self.target, self.model, self.settings, headers=self.headers, tls=self.tls)
        outcome = await run_load(plan, conversations, make, faults=self.faults, doer=self.doer, watch=watch)
        return run_document(outcome, self.settings, with_records=self.with_records)


def plan_runs(settings: LoadSettings, workload: WorkloadSettings) -> list[RunPlan]:
    """The runs that the flags ask for.

    Raises:
        ConfigError: it is not said when to send.
    """
    is_endless = workload.trace is None and workload.dataset is None
    duration_s = settings.duration_s
    if duration_s is None and settings.requests is None and is_endless:
        duration_s = DEFAULT_DURATION_S
    ends = (settings.requests, duration_s)
    if concurrencies := settings.concurrencies():
        return [RunPlan(f"{number} at once", None, number, *ends) for number in concurrencies]
    if rates := settings.rates():
        return [RunPlan(f"{rate:g} requests/s", rate, None, *ends) for rate in rates]
    if workload.trace is None:
        raise ConfigError("say how many requests a second with --rate, or how many at once with --concurrency")
    return [RunPlan("at the trace's times", None, None, *ends)]


def allow_connections(num_connections: int) -> None:
    """Lets this process have so many connections.

    Raises:
        ConfigError: the system does not allow that.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = num_connections + SPARE_FILES
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise ConfigError(
            f"--max-open is {num_connections}, but a process may have {hard} files open here; lower it to "
            f"{max(1, hard - SPARE_FILES)} or raise `ulimit -Hn`"
        )
    if soft != resource.RLIM_INFINITY and needed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
