"""How the role controller weighs what it sees. Validated on construction; each default has its reason."""

import math
from dataclasses import dataclass

from core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """Settings of a `RoleController`.

    Attributes:
        horizon_s: how far it looks ahead. A change takes effect within a second and can be taken back as fast, so
            what comes later can be met later; and by then the forecast is better.
        memory_s: how far back the forecast looks at most: long enough that the mean of a few requests per second is
            steady.
        significance: by how many standard deviations the last seconds must differ from what was before, so that this
            is forgotten. There are some thousand looks in an hour; at 4 hardly one of them is wrong by chance.
        min_gain: by what part of the requests in question a split must be better than staying. Below this, what
            is gained is smaller than the errors of the prediction.
        dwell_s: how long a worker keeps a role. A few times the time that its sequences take to leave.
        emergency_dwell_s: the same when a limit is about to be broken, for workers that become mixed, from which
            nothing has to move: until the change before has had an effect.
        release_s: how long a mixed worker stays so when it is needed no more. As long as the forecast remembers:
            what was needed within that time may be needed again.
        patience_s: how long a half has had no worker before another becomes one. Workers attach one after the other
            at the start, and Ray restarts a lost one within a few seconds.
        max_flip_share: most workers that change at once, as a part of all. The others must take their sequences.
        flip_s: time of a worker that a change of its role costs, unless it becomes mixed: what it had queued starts
            again elsewhere, and what it is to do has yet to come.
        moved_sequence_s: time of a worker that moving one sequence costs.

    Raises:
        ConfigError: on construction, when a value is out of range.
    """

    horizon_s: float = 5.0
    memory_s: float = 60.0
    significance: float = 4.0
    min_gain: float = 0.04
    dwell_s: float = 20.0
    emergency_dwell_s: float = 3.0
    release_s: float = 60.0
    patience_s: float = 10.0
    max_flip_share: float = 0.5
    flip_s: float = 2.0
    moved_sequence_s: float = 0.05

    def __post_init__(self) -> None:
        for name in ("horizon_s", "memory_s", "significance", "max_flip_share"):
            self._require(name, 0 < getattr(self, name) < math.inf, "positive and finite")
        for name in (
            "min_gain",
            "dwell_s",
            "emergency_dwell_s",
            "release_s",
            "patience_s",
            "flip_s",
            "moved_sequence_s",
        ):
            self._require(name, 0 <= getattr(self, name) < math.inf, "finite and not below 0")
        self._require("max_flip_share", self.max_flip_share <= 1, "at most 1")
        self._require("emergency_dwell_s", self.emergency_dwell_s <= self.dwell_s, f"at most dwell_s, {self.dwell_s}")

    def _require(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            raise ConfigError(f"{name} of the role controller is {getattr(self, name)}; it must be {rule}")
