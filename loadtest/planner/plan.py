"""What a search for a fleet found: every option, with what was estimated and simulated of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from loadtest.planner.demand import Demand
from loadtest.planner.option import Estimate, Infeasible, WorkerOption
from loadtest.planner.trial import Trial
from router.roles.snapshot import Limits


@dataclass(frozen=True, slots=True)
class Goal:
    """What a plan must do.

    Attributes:
        limits: of every request.
        attainment: share of all requests that must be inside both.
        max_gpus: no plan has more.
        num_simulated: options that are simulated: those of the fewest GPUs by estimate.
    """

    limits: Limits
    attainment: float
    max_gpus: int
    num_simulated: int


@dataclass(slots=True)
class Outlook:
    """What is known of an option.

    Attributes:
        option: which.
        verdict: how many workers the load keeps busy, or why it cannot be.
        trials: by the number of workers; none where others promised more.
    """

    option: WorkerOption
    verdict: Estimate | Infeasible
    trials: dict[int, list[Trial]] = field(default_factory=dict)

    def best(self, num_workers: int) -> Trial:
        """The best trial with so many workers; of equal ones the first."""
        return max(self.trials[num_workers], key=lambda trial: trial.attainment)

    def smallest(self, attainment: float) -> Trial | None:
        """The best trial of the fewest workers that keep the goal; None when none did."""
        enough = [num for num in sorted(self.trials) if self.best(num).attainment >= attainment]
        return self.best(enough[0]) if enough else None

    def largest_failure(self, attainment: float) -> Trial | None:
        """The best trial of the most workers that do not keep the goal; None when all did."""
        too_few = [num for num in sorted(self.trials) if self.best(num).attainment < attainment]
        return self.best(too_few[-1]) if too_few else None

    @property
    def estimated_gpus(self) -> float:
        """That the load keeps busy; infinite where it cannot be."""
        return math.inf if isinstance(self.verdict, Infeasible) else self.verdict.num_workers * self.option.num_gpus


@dataclass(frozen=True, slots=True)
class Plan:
    """What came of a search.

    Attributes:
        demand: of the load.
        goal: what was asked for.
        outlooks: of all options, best first; see `ranking`.
    """

    demand: Demand
    goal: Goal
    outlooks: Sequence[Outlook]

    @property
    def winner(self) -> Trial | None:
        """The fleet to build; None when no option keeps the goal."""
        return self.outlooks[0].smallest(self.goal.attainment) if self.outlooks else None


def ranking(outlook: Outlook, attainment: float) -> tuple[int, float, float, float]:
    """Sorts outlooks, best first.

    Those that keep the goal come first: by GPUs, then by attainment in per mille, then by what the load keeps busy of
    them. Then come those that were simulated and do not, then those only estimated, then those that cannot.
    """
    trial = outlook.smallest(attainment)
    if trial is not None:
        return 0, trial.fleet.num_gpus, -round(trial.attainment, 3), outlook.estimated_gpus
    return (1 if outlook.trials else 2), outlook.estimated_gpus, 0.0, 0.0
