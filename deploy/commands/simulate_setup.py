"""What `baton simulate` is asked to simulate: its flags as a preset. Runs nothing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from core.errors import ConfigError
from loadtest.load.faults import Fault
from loadtest.policies.by_name import policy_by_name
from loadtest.presets.arrow import arrow_preset
from loadtest.presets.custom import custom_preset
from loadtest.presets.day import day_preset
from loadtest.presets.mooncake import mooncake_preset
from loadtest.presets.preset import CLAIRVOYANT, Contestant, Preset
from router.admission.admission import AdmissionLimits
from router.roles.snapshot import Limits

ARROW, MOONCAKE, DAY = "arrow", "mooncake", "day"
PRESETS = (ARROW, MOONCAKE, DAY)


@dataclass(frozen=True, slots=True)
class Setup:
    """What was asked for; travels to other processes, where the preset is made anew.

    Attributes:
        preset: its name; ignored where there is a fleet.
        fleet: a file that describes one.
        trace: requests.
        limits: of a described fleet's requests.
        loads: to simulate; none for the preset's.
        seeds: of the arrivals; none for the preset's.
        faults: besides the preset's.
        admit_ttft_s: what the router accepts; 0 for everything, None for what the preset says.

    Raises:
        ConfigError: on construction, when these do not go together.
    """

    preset: str
    fleet: Path | None = None
    trace: Path | None = None
    limits: Limits | None = None
    loads: tuple[float, ...] = ()
    seeds: tuple[int, ...] = ()
    faults: tuple[Fault, ...] = ()
    admit_ttft_s: float | None = None

    def __post_init__(self) -> None:
        if self.admit_ttft_s is not None and not 0 <= self.admit_ttft_s < math.inf:
            raise ConfigError(f"--admit-ttft-ms is {1000 * self.admit_ttft_s:g}; it must be finite and not below 0")
        if self.fleet is not None:
            self._check_fleet()
            return
        if self.limits is not None:
            raise ConfigError("--slo-ttft-ms and --slo-tpot-ms are for --fleet; presets have limits of their own")
        if self.preset not in PRESETS:
            raise ConfigError(f"--preset {self.preset!r} is none; take one of {', '.join(PRESETS)}")
        if self.preset == MOONCAKE and self.trace is None:
            raise ConfigError(f"--preset {MOONCAKE} needs --trace FILE: mooncake_conversation.jsonl")
        if self.preset == ARROW and self.trace is not None:
            raise ConfigError(f"--preset {ARROW} has no use for --trace: its load is drawn")

    def _check_fleet(self) -> None:
        if self.trace is None:
            raise ConfigError(f"--fleet {self.fleet} needs --trace FILE: Mooncake's .jsonl or Azure's .csv")
        limits = self.limits
        if limits is None or not (0 < limits.ttft_s < math.inf and 0 < limits.tpot_s < math.inf):
            raise ConfigError("--fleet needs --slo-ttft-ms and --slo-tpot-ms, both above 0")

    def make(self) -> Preset:
        """The preset.

        Raises:
            ConfigError: a file cannot be read, or says nothing that can be used.
        """
        preset = self._base()
        accepted = preset.accepted
        if self.admit_ttft_s is not None:
            accepted = AdmissionLimits(ttft_s=self.admit_ttft_s) if self.admit_ttft_s else None
        return replace(
            preset,
            loads=self.loads or preset.loads,
            seeds=self.seeds or preset.seeds,
            faults=(*preset.faults, *self.faults),
            accepted=accepted,
        )

    def _base(self) -> Preset:
        if self.fleet is not None:
            assert self.trace is not None, "checked on construction"
            assert self.limits is not None, "checked on construction"
            return custom_preset(self.fleet, self.trace, self.limits)
        if self.preset == DAY:
            return day_preset(self.trace)
        return arrow_preset() if self.trace is None else mooncake_preset(self.trace)


def parse_loads(text: str) -> tuple[float, ...]:
    """Loads from `2.4,3.2`, in rising order; none from an empty text.

    Raises:
        ConfigError: not positive numbers.
    """
    try:
        loads = {float(part) for part in text.split(",")} if text else set()
    except ValueError:
        loads = {0.0}
    if not all(0 < load < math.inf for load in loads):
        raise ConfigError(f"--loads is {text!r}; it must be positive numbers separated by commas, such as 2.4,3.2")
    return tuple(sorted(loads))


def chosen_contestants(preset: Preset, policies: Sequence[str]) -> tuple[Contestant, ...]:
    """The preset's, or those with the given policies on each kind of workers.

    Raises:
        ConfigError: there is no such policy.
    """
    if not policies:
        return preset.contestants
    for fleet in preset.fleets.values():
        for name in policies:
            if name != CLAIRVOYANT:
                policy_by_name(name, fleet.num_workers, preset.limits)
    return tuple(Contestant(kind, name) for kind in preset.fleets for name in policies)
