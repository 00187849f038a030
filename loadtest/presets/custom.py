"""A fleet of one's own under a trace, with whatever policies: what `baton simulate --fleet` runs."""

from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

from loadtest.arrivals import Arrival
from loadtest.policies.by_name import AUTO
from loadtest.presets.preset import Contestant, Preset
from loadtest.simulator.fleet_file import read_fleet
from loadtest.traces import faster
from loadtest.workloads.settings import WorkloadSettings
from loadtest.workloads.traced import read_trace
from router.admission.admission import AdmissionLimits
from router.roles.snapshot import Limits

FLEET = "fleet"
TARGET = 0.9  # of requests inside both limits


def custom_preset(fleet: Path, trace: Path, limits: Limits) -> Preset:
    """A described fleet under a trace at its own speed, with Baton's controller and a router's defaults.

    Args:
        fleet: its file, see `loadtest.simulator.fleet_file`.
        trace: Mooncake's `.jsonl` or Azure's `.csv`.
        limits: of every request.

    Raises:
        ConfigError: the fleet cannot be read; or the trace, when loads are made.
    """
    return Preset(
        name=fleet.stem,
        fleets={FLEET: read_fleet(fleet, limits.tpot_s)},
        limits=limits,
        target=TARGET,
        loads=(1.0,),
        unit="speed of the trace",
        seeds=(0,),
        make=partial(_load_at, trace),
        ours=Contestant(FLEET, AUTO),
        ratios=(),
        accepted=AdmissionLimits(),
    )


def _load_at(trace: Path, speed: float, seed: int) -> list[Arrival]:  # noqa: ARG001 - nothing is drawn
    return faster(_requests(trace), speed)


@cache
def _requests(trace: Path) -> Sequence[Arrival]:
    return read_trace(WorkloadSettings(), trace).arrivals
