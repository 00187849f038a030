"""A set-up that is simulated at rising load, with several policies, to see how much each sustains."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from loadtest.arrivals import Arrival
from loadtest.load.faults import Fault
from loadtest.simulator.spec import FleetSpec
from router.admission.admission import AdmissionLimits
from router.roles.snapshot import Limits

CLAIRVOYANT = "clairvoyant"
"""The policy that `loadtest.clairvoyant` searches for; the others have names in `loadtest.policies.by_name`."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """Who is compared.

    Attributes:
        workers: kind of the workers, a key of `Preset.fleets`.
        policy: name of who decides.
    """

    workers: str
    policy: str


@dataclass(frozen=True, slots=True)
class Ratio:
    """What `Preset.ours` is to sustain.

    Attributes:
        name: of the check.
        rivals: the best of these is what it is compared with.
        target: at least this many times as much.
    """

    name: str
    rivals: tuple[Contestant, ...]
    target: float


@dataclass(frozen=True, slots=True)
class Preset:
    """A fleet and a load.

    Attributes:
        name: as people write it.
        fleets: by the kind of their workers.
        limits: of every request.
        target: share of requests inside both limits from which on a load is sustained.
        loads: how strong it is made, rising; what of, `unit` says.
        unit: of `loads`.
        seeds: of the arrivals; figures are of all of them together.
        make: the arrivals of a load and a seed.
        ours: who is compared with the others.
        ratios: what is to come of it.
        others: who is shown beside those that the ratios name.
        accepted: what the router accepts; None for everything.
        faults: what goes wrong in each run.
        look_s: between two looks of Baton's controller.
    """

    name: str
    fleets: Mapping[str, FleetSpec]
    limits: Limits
    target: float
    loads: tuple[float, ...]
    unit: str
    seeds: tuple[int, ...]
    make: Callable[[float, int], Iterable[Arrival]]
    ours: Contestant
    ratios: tuple[Ratio, ...]
    others: tuple[Contestant, ...] = ()
    accepted: AdmissionLimits | None = None
    faults: tuple[Fault, ...] = ()
    look_s: float = 1.0

    @property
    def contestants(self) -> tuple[Contestant, ...]:
        """All of them, by the kind of their workers."""
        rivals = (rival for ratio in self.ratios for rival in ratio.rivals)
        everybody = dict.fromkeys((*rivals, *self.others, self.ours))
        return tuple(sorted(everybody, key=lambda one: list(self.fleets).index(one.workers)))
