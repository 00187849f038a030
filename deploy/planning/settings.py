"""What `baton plan` is asked, as its flags."""

import itertools
import math
from dataclasses import dataclass
from pathlib import Path

from core.errors import ConfigError
from core.flags import flag
from loadtest.arrivals import Arrival
from loadtest.planner.trial import PREFIX_BLOCK_TOKENS
from loadtest.workloads.plan import ConversationPlan
from loadtest.workloads.settings import WorkloadSettings
from loadtest.workloads.simulated import Pace, arrivals_of
from loadtest.workloads.workload import Workload
from router.roles.snapshot import Limits

SYNTHETIC_S = 60.0  # of a load that has no end of its own


@dataclass(frozen=True, slots=True)
class PlanSettings(WorkloadSettings):
    """A model, GPUs, a load and limits.

    Raises:
        ConfigError: on construction, naming the flag and its value.
    """

    model: str | None = flag(
        None, "A folder with a config.json, or a published model such as ernie-4.5-300b-a47b. Needed."
    )
    gpu: str = flag("H800", "H800, H100, H200, H20 or B200.")
    quantization: str | None = flag(
        None, "Weights: none, wint8, wint4, w4a8 or block_wise_fp8. Default: as stored, else all are tried."
    )
    kv_dtype: str | None = flag(None, "KV cache: int8, fp8 or another. Default: the model's type.")
    tp: int | None = flag(None, "Tensor-parallel size of each worker. Default: all are tried, up to a node.")
    ep: int | None = flag(None, "Expert-parallel size likewise.")
    rate: float | None = flag(None, "Requests (conversations) per second. Default: the trace's own times.")
    duration_s: float | None = flag(
        None, "Seconds of the load that are simulated. Default: 60, or the whole trace or data set."
    )
    slo_ttft_ms: float = flag(2000.0, "Limit of the time to the first token.")
    slo_tpot_ms: float = flag(50.0, "Limit of the mean time per token after the first.")
    attainment: float = flag(0.9, "Share of requests that must be inside both limits.")
    max_gpus: int = flag(512, "No plan has more GPUs.")
    simulated: int = flag(6, "How many kinds of workers are simulated: those that promise the fewest GPUs.")
    reproduce: str | None = flag(
        None, "Instead of a plan: the model's prediction beside a published figure; ernie-300b."
    )
    json: Path | None = flag(None, "Write all figures here.")

    def __post_init__(self) -> None:
        WorkloadSettings.__post_init__(self)  # `super()` does not know the class that `slots` makes
        for name in ("rate", "duration_s", "slo_ttft_ms", "slo_tpot_ms", "max_gpus", "simulated", "tp", "ep"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"--{name.replace('_', '-')} is {value}; it must be a positive number")
        if not 0 < self.attainment <= 1:
            raise ConfigError(f"--attainment is {self.attainment}; it must be a share above 0, at most 1")
        beside = [name for name in self.given() if name not in ("--reproduce", "--json")]
        if self.reproduce is not None and beside:
            raise ConfigError(f"--reproduce has its own model, GPUs and load; leave out {', '.join(beside)}")

    @property
    def limits(self) -> Limits:
        """Of every request."""
        return Limits(ttft_s=self.slo_ttft_ms / 1e3, tpot_s=self.slo_tpot_ms / 1e3)


def load_of(settings: PlanSettings) -> list[Arrival]:
    """The requests to plan for, by time; answers between turns are taken to come at the limits.

    Raises:
        ConfigError: a file cannot be read, or there is no rate, or no request.
    """
    plans = Workload.load(settings).open_loop(settings.rate)
    is_endless = settings.trace is None and settings.dataset is None
    duration_s = settings.duration_s or (SYNTHETIC_S if is_endless else math.inf)

    def is_in_time(plan: ConversationPlan) -> bool:
        assert plan.at_s is not None, "an open loop has times"
        return plan.at_s < duration_s

    pace = Pace(settings.limits.ttft_s, settings.limits.tpot_s)
    arrivals = list(arrivals_of(itertools.takewhile(is_in_time, plans), PREFIX_BLOCK_TOKENS, pace))
    if not arrivals:
        raise ConfigError(f"no request comes in {duration_s:g} s; raise --duration-s or --rate")
    return arrivals
