"""Why an option is not the plan, in one sentence with the numbers."""

from loadtest.planner.option import Infeasible
from loadtest.planner.plan import Goal, Outlook, Plan
from loadtest.planner.trial import Trial

FINE_S = 0.1


def why_lost(outlook: Outlook, plan: Plan) -> str:
    """Why `outlook` is not the first of a plan."""
    goal = plan.goal
    if isinstance(outlook.verdict, Infeasible):
        return outlook.verdict.reason
    trial, failure = outlook.smallest(goal.attainment), outlook.largest_failure(goal.attainment)
    if trial is not None:
        return _why_second(outlook, trial, plan)
    if failure is not None:
        return f"not found to keep the goal; {shortfall(failure, goal)}"
    return f"only estimated: it would keep {outlook.estimated_gpus:.1f} GPUs busy, others fewer"


def _why_second(outlook: Outlook, trial: Trial, plan: Plan) -> str:
    first, winner = plan.outlooks[0], plan.winner
    assert winner is not None, "whoever keeps the goal has lost to somebody"
    failure = outlook.largest_failure(plan.goal.attainment)
    more = trial.fleet.num_gpus - winner.fleet.num_gpus
    if more:
        too_few = f"; {shortfall(failure, plan.goal)}" if failure is not None else ""
        return f"needs {more} GPUs more{too_few}"
    if round(trial.attainment, 3) < round(winner.attainment, 3):
        return f"as many GPUs, but {trial.attainment:.1%} of requests are inside, not {winner.attainment:.1%}"
    busy, first_busy = f"{outlook.estimated_gpus:.1f}", f"{first.estimated_gpus:.1f}"
    if busy == first_busy:
        return "as good: no figure tells them apart"
    return f"as good, with less to spare: the load keeps {busy} of its GPUs busy, not {first_busy}"


def shortfall(trial: Trial, goal: Goal) -> str:
    """How far a fleet stays behind the goal."""
    return f"with {trial.fleet.num_gpus} GPUs {trial.attainment:.1%} are inside: {limit_missed(trial, goal)}"


def limit_missed(trial: Trial, goal: Goal) -> str:
    """The limit that fewer requests kept, and how many."""
    limits = goal.limits
    if trial.ttft_attainment <= trial.tpot_attainment:
        share, p90_s, limit_s, name = trial.ttft_attainment, trial.ttft_p90_s, limits.ttft_s, "TTFT"
    else:
        share, p90_s, limit_s, name = trial.tpot_attainment, trial.tpot_p90_s, limits.tpot_s, "TPOT"
    return f"{name} p90 {milliseconds(p90_s)}, limit {milliseconds(limit_s)}, kept by {share:.1%}"


def milliseconds(seconds: float | None) -> str:
    """For people: with a decimal below `FINE_S`; None is never."""
    if seconds is None:
        return "never"
    return f"{1e3 * seconds:,.1f} ms" if seconds < FINE_S else f"{1e3 * seconds:,.0f} ms"
