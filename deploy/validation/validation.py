"""The simulator against a cluster that runs: the same requests at both, and how far they are apart.

For each load: a while of it warms up, so that workers correct their cost models to what steps take under it; these
are read; then the simulator predicts what the load comes to, and the cluster is sent it. Nothing that is measured
under the measured load goes into its prediction.
"""

import itertools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.cost import CostModel
from deploy.cluster import Say, run_cluster
from deploy.config import ServeConfig
from deploy.validation.case import Case, cases, pressure
from deploy.validation.figures import Figures, RequestTimes, error_checks, figures
from deploy.validation.live_side import LiveCluster, Overhead, overhead
from deploy.validation.simulated_side import simulated_times
from loadtest.load.record import RequestRecord
from loadtest.load.run import RunPlan, Watch
from loadtest.workloads.settings import WorkloadSettings
from loadtest.workloads.workload import Workload

NUM_ALONE = 12  # requests one after the other; the first few find cold code
NUM_COLD = 4
WARM_UP, MEASURED = 0, 1  # numbers of runs: each has its own words


@dataclass(frozen=True, slots=True)
class Validation:
    """What is compared.

    Attributes:
        duration_s: for which each load is sent.
        warm_up_s: for which it is sent before.
        seed: of the loads.
        watch: shows a run as it goes.
    """

    duration_s: float
    warm_up_s: float
    seed: int
    watch: Callable[[RunPlan], Watch]

    def run(self, model_dir: Path, say: Say) -> dict[str, Any]:
        """Starts a cluster of the demo's size, compares all loads, stops it."""
        config = ServeConfig(model=model_dir, port=0, ask="", auto_roles=False)
        settings = WorkloadSettings(tokenizer=model_dir, seed=self.seed)
        with run_cluster(config, model_dir, say) as cluster:
            live = LiveCluster(cluster.url, cluster.grpc_address, config.model_name, self.watch)
            say(f"{NUM_ALONE} requests one after the other")
            found, cost = self._overhead(live, settings)
            results = [
                self._compare(case, live=live, config=config, found=found, cost=cost, say=say)
                for case in cases(settings)
            ]
        return {
            "overhead": asdict(found),
            "loads": [asdict(result) for result in results],
            "checks": [check for one in results for check in error_checks(one.name, one.predicted, one.measured)],
        }

    def _overhead(self, live: LiveCluster, settings: WorkloadSettings) -> tuple[Overhead, CostModel]:
        alone = Workload.load(
            WorkloadSettings(
                tokenizer=settings.tokenizer, seed=settings.seed, prompt_tokens="256", answer_tokens="16"
            )
        )
        plan = RunPlan("alone", None, 1, NUM_ALONE, None)
        outcome, cost = live.send_and_learn(plan, alone.conversations(alone.closed_loop(), WARM_UP))
        return overhead(outcome.records[NUM_COLD:], cost), cost

    def _compare(
        self,
        case: Case,
        *,
        live: LiveCluster,
        config: ServeConfig,
        found: Overhead,
        cost: CostModel,
        say: Say,
    ) -> "Comparison":
        workload = Workload.load(case.settings)
        pressed = pressure(case, workload, cost)
        say(
            f"{case.name}: {pressed.rate:.2f} requests/s, {self.warm_up_s:g} s to warm up, then {self.duration_s:g} s"
        )
        warm_up = RunPlan(f"{case.name}, warming up", pressed.rate, None, None, self.warm_up_s)
        warm = workload.conversations(workload.open_loop(pressed.rate), WARM_UP)
        _, cost = live.send_and_learn(warm_up, warm)

        measured = RunPlan(case.name, pressed.rate, None, None, self.duration_s)
        worker = live.worker_spec(cost, config.max_num_batched_tokens, config.slo_tpot_ms / 1000)
        plans = itertools.takewhile(
            lambda plan: (plan.at_s or 0.0) < self.duration_s, workload.open_loop(pressed.rate)
        )
        predicted = simulated_times(plans, worker, found, pressed)
        outcome = live.send(measured, workload.conversations(workload.open_loop(pressed.rate), MEASURED))
        limits = pressed.ttft_limit_s, pressed.tpot_limit_s, self.duration_s
        return Comparison(
            case.name,
            pressed.rate,
            pressed.ttft_limit_s,
            pressed.tpot_limit_s,
            len(outcome.records),
            figures(predicted, *limits),
            figures([_times(record) for record in outcome.records], *limits),
        )


def _times(record: RequestRecord) -> RequestTimes:
    assert record.ttft_s is not None, f"request {record.number} was not answered"
    return RequestTimes(record.ttft_s, record.tpot_s)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One load at both.

    Attributes:
        name: of the load.
        rate: requests per second.
        ttft_limit_s: for goodput.
        tpot_limit_s: likewise.
        num_requests: that were sent.
        predicted: by the simulator.
        measured: at the cluster.
    """

    name: str
    rate: float
    ttft_limit_s: float
    tpot_limit_s: float
    num_requests: int
    predicted: Figures
    measured: Figures
