"""`baton load` beside public load clients: the same load on the same router, whose workers keep a steady pace.

Workers that compute nothing make the comparison one of clients: on a small machine a heavy client would take from
real workers the very cores that it measures.
"""

import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from deploy.bench.checks import at_most
from deploy.bench.clients.peers import PEERS, ClientFigures, ClosedLoad, measure_with
from deploy.bench.router.front_ends import MODEL, FrontEnds
from deploy.bench.router.pace import Pace
from deploy.bench.router.router_bench import tokenizer_dir
from deploy.cluster import Say
from deploy.load.plain_load import send_plain_load
from loadtest.load.record import RequestRecord
from loadtest.load.run import RunPlan, Watch
from loadtest.workloads.settings import WorkloadSettings
from loadtest.workloads.workload import Workload

TOLERANCE = 0.1
OURS = "baton load"


@dataclass(frozen=True, slots=True)
class ClientsBench:
    """What is compared.

    Attributes:
        programs: executables of the public clients, by their names in `PEERS`.
        concurrency: requests at once.
        num_requests: of each run.
        prompt_ms: milliseconds that a prompt takes.
        step_ms: milliseconds between two tokens of an answer.
        prompt_tokens: of each request.
        answer_tokens: likewise.
        watch: shows a run of ours as it goes.
    """

    programs: Mapping[str, str]
    concurrency: int
    num_requests: int
    prompt_ms: float
    step_ms: float
    prompt_tokens: int
    answer_tokens: int
    watch: Callable[[RunPlan], Watch]

    def run(self, model_dir: Path | None, say: Say) -> dict[str, Any]:
        """Runs ours, then each of the others with ours after it: each is compared with the runs around it.

        Args:
            model_dir: whose tokenizer is used; None for the demo model's if it is built, else for a small one.
            say: is told what is going on.

        Raises:
            ConfigError: a program is not there.
            InternalError: a client failed.
        """
        with ExitStack() as stack:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="baton-clients-")))
            model_dir = model_dir or tokenizer_dir(scratch)
            front_ends = stack.enter_context(FrontEnds(model_dir, 2, say, None))
            front_ends.set_pace(Pace(self.step_ms / 1000, prompt_s=self.prompt_ms / 1000))
            load = ClosedLoad(
                url=front_ends.url,
                model=MODEL,
                tokenizer=model_dir,
                concurrency=self.concurrency,
                num_requests=self.num_requests,
                prompt_tokens=self.prompt_tokens,
                answer_tokens=self.answer_tokens,
            )
            return self._compare(load, scratch, say)

    def _compare(self, load: ClosedLoad, scratch: Path, say: Say) -> dict[str, Any]:
        workload = Workload.load(
            WorkloadSettings(
                tokenizer=load.tokenizer,
                prompt_tokens=str(load.prompt_tokens),
                answer_tokens=str(load.answer_tokens),
            )
        )
        runs, checks = [(OURS, self._ours(load, workload, 0, say))], []
        for number, (name, program) in enumerate(self.programs.items(), start=1):
            say(f"{name}: {load.num_requests} requests, {load.concurrency} at once")
            folder = scratch / name
            folder.mkdir()
            theirs = measure_with(PEERS[name], program, load, folder)
            before, after = runs[-1][1], self._ours(load, workload, number, say)
            runs += [(name, theirs), (OURS, after)]
            checks += differences(name, theirs, (before, after))
        return {
            "load": {"concurrency": load.concurrency, "requests": load.num_requests, **self._pace()},
            "runs": [{"client": name, **asdict(figures)} for name, figures in runs],
            "checks": checks,
        }

    def _pace(self) -> dict[str, float]:
        return {"prompt_ms": self.prompt_ms, "step_ms": self.step_ms}

    def _ours(self, load: ClosedLoad, workload: Workload, number: int, say: Say) -> ClientFigures:
        say(f"{OURS}: {load.num_requests} requests, {load.concurrency} at once")
        plan = RunPlan(OURS, None, load.concurrency, load.num_requests, None)
        conversations = workload.conversations(workload.closed_loop(), number)
        outcome = send_plain_load(load.url, load.model, plan, conversations, self.watch(plan))
        return figures_of(outcome.records)


def figures_of(records: list[RequestRecord]) -> ClientFigures:
    """The medians of answered requests of two tokens and more."""
    ttft_s = [record.ttft_s for record in records if record.ttft_s is not None]
    tpot_s = [record.tpot_s for record in records if record.tpot_s is not None]
    return ClientFigures(sum(record.is_answered for record in records), 1e3 * median(ttft_s), 1e3 * median(tpot_s))


def differences(name: str, theirs: ClientFigures, ours: tuple[ClientFigures, ClientFigures]) -> list[dict[str, Any]]:
    """One check for each median: how far ours, the mean of the runs before and after, is from theirs."""
    checks = []
    for figure in ("ttft_ms_p50", "tpot_ms_p50"):
        mine, other = fmean(getattr(run, figure) for run in ours), getattr(theirs, figure)
        checks.append(at_most(f"{name}_{figure}_difference", abs(mine - other) / other, "of theirs", TOLERANCE))
    return checks
