"""What a controller could do that knew every request beforehand: the yardstick for those that do not.

It has the mechanisms, the costs of flips and the placement of Baton's own controller, and a timetable of splits, one
for each few seconds. The timetable is found by trying: every split that stays, then changes of the best one so far in
random stretches of time, each simulated with the very requests that come. What Baton's own controller did with them
is tried, too, so that knowing them is never worse. The true best may be better than what is found.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from core.request import Role
from loadtest.arrivals import Arrival
from loadtest.load.faults import Fault
from loadtest.policies.by_name import AUTO, policy_by_name
from loadtest.policies.policy import Policy
from loadtest.policies.scheduled import ScheduledRoles, Timetable
from loadtest.simulator.outcome import Outcome
from loadtest.simulator.simulation import simulate
from loadtest.simulator.spec import FleetSpec
from router.admission.admission import AdmissionLimits
from router.roles.snapshot import Limits

STRETCH_WINDOWS = 3  # mean length of a change; a few long ones find the coarse shape, the short ones its edges


@dataclass(frozen=True, slots=True)
class Search:
    """How much is tried.

    Attributes:
        window_s: the shortest time a split holds.
        num_tries: changes that are simulated.
        accepted: what the router accepts; None for everything.
        faults: what goes wrong in each run.
        look_s: between two looks of Baton's controller.
    """

    window_s: float = 5.0
    num_tries: int = 400
    accepted: AdmissionLimits | None = None
    faults: tuple[Fault, ...] = ()
    look_s: float = 1.0

    def best(self, spec: FleetSpec, arrivals: Sequence[Arrival], limits: Limits, seed: int) -> Outcome:
        """The best outcome found; the same for the same seed. Ends early when every request is inside the limits.

        Args:
            spec: the fleet, of at least two workers.
            arrivals: in order of time.
            limits: of every request.
            seed: of the changes.
        """
        trial = _Trial(self, spec, arrivals, limits)
        draws = random.Random(seed)  # noqa: S311 - a search, no secret
        last_s = arrivals[-1].at_s if arrivals else 0.0
        num_windows = max(1, math.ceil(last_s / self.window_s))
        splits = range(1, spec.num_workers)
        best, table = max(((trial.run((n,) * num_windows), (n,) * num_windows) for n in splits), key=_num_inside)
        for _ in range(self.num_tries):
            if best.num_inside == len(arrivals):
                break
            changed = _changed(table, draws.choice(splits), draws)
            if changed != table and (outcome := trial.run(changed)).num_inside >= best.num_inside:
                best, table = outcome, changed
        own = trial.simulated(*policy_by_name(AUTO, spec.num_workers, limits, self.look_s))
        return max(best, own, key=lambda outcome: outcome.num_inside)


@dataclass(frozen=True, slots=True)
class _Trial:
    search: Search
    spec: FleetSpec
    arrivals: Sequence[Arrival]
    limits: Limits

    def run(self, num_prefill: tuple[int, ...]) -> Outcome:
        table = Timetable(self.search.window_s, num_prefill)
        return self.simulated(table.roles(self.spec.num_workers), ScheduledRoles(table))

    def simulated(self, roles: Sequence[Role], policy: Policy) -> Outcome:
        return simulate(
            self.spec,
            roles,
            self.arrivals,
            policy,
            self.limits,
            accepted=self.search.accepted,
            faults=self.search.faults,
        )


def _num_inside(found: tuple[Outcome, tuple[int, ...]]) -> int:
    return found[0].num_inside


def _changed(table: tuple[int, ...], split: int, draws: random.Random) -> tuple[int, ...]:
    """The timetable with one split for a stretch of time."""
    start = draws.randrange(len(table))
    length = 1 + int(draws.expovariate(1 / STRETCH_WINDOWS))
    return (*table[:start], *(split,) * min(length, len(table) - start), *table[start + length :])
