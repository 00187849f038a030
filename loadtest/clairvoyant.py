"""What a controller could do that knew every request beforehand: the yardstick for those that do not.

It has the mechanisms, the costs of flips and the placement of Baton's own controller, and a timetable of splits, one
for each few seconds. The timetable is found by trying: every split that stays, then changes of the best one so far in
random stretches of time, each simulated with the very requests that come. What Baton's own controller did with them
is tried, too, so that knowing them is never worse. The true best may be better than what is found.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.arrivals import Arrival
from loadtest.policies.by_name import AUTO, policy_by_name
from loadtest.policies.scheduled import ScheduledRoles, Timetable
from loadtest.simulator.outcome import Outcome
from loadtest.simulator.simulation import simulate
from loadtest.simulator.spec import FleetSpec
from router.roles.snapshot import Limits

STRETCH_WINDOWS = 3  # mean length of a change; a few long ones find the coarse shape, the short ones its edges


@dataclass(frozen=True, slots=True)
class Search:
    """How much is tried.

    Attributes:
        window_s: the shortest time a split holds.
        num_tries: changes that are simulated.
    """

    window_s: float = 5.0
    num_tries: int = 400

    def best(self, spec: FleetSpec, arrivals: Sequence[Arrival], limits: Limits, seed: int) -> Outcome:
        """The best outcome found; the same for the same seed. Ends early when every request is inside the limits."""
        trial = _Trial(spec, arrivals, limits, self.window_s)
        draws = random.Random(seed)  # noqa: S311 - a search, no secret
        num_windows = max(1, -(-int(arrivals[-1].at_s) // int(self.window_s)))
        splits = range(1, spec.num_workers)
        best, table = max(((trial.run((n,) * num_windows), (n,) * num_windows) for n in splits), key=_num_inside)
        for _ in range(self.num_tries):
            if best.num_inside == len(arrivals):
                break
            changed = _changed(table, draws.choice(splits), draws)
            if changed != table and (outcome := trial.run(changed)).num_inside >= best.num_inside:
                best, table = outcome, changed
        roles, policy = policy_by_name(AUTO, spec.num_workers, limits)
        own = simulate(spec, roles, arrivals, policy, limits)
        return max(best, own, key=lambda outcome: outcome.num_inside)


@dataclass(frozen=True, slots=True)
class _Trial:
    spec: FleetSpec
    arrivals: Sequence[Arrival]
    limits: Limits
    window_s: float

    def run(self, num_prefill: tuple[int, ...]) -> Outcome:
        table = Timetable(self.window_s, num_prefill)
        roles = table.roles(self.spec.num_workers)
        return simulate(self.spec, roles, self.arrivals, ScheduledRoles(table), self.limits)


def _num_inside(found: tuple[Outcome, tuple[int, ...]]) -> int:
    return found[0].num_inside


def _changed(table: tuple[int, ...], split: int, draws: random.Random) -> tuple[int, ...]:
    """The timetable with one split for a stretch of time."""
    start = draws.randrange(len(table))
    length = 1 + int(draws.expovariate(1 / STRETCH_WINDOWS))
    return (*table[:start], *(split,) * min(length, len(table) - start), *table[start + length :])
