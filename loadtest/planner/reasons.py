"""Why an option is not the plan, in one sentence with the numbers."""

from loadtest.planner.option import Infeasible
from loadtest.planner.plan import Goal, Outlook
from loadtest.planner.trial import Trial


def why_lost(outlook: Outlook, winner: Trial | None, goal: Goal) -> str:
    """Why `outlook` is not the plan."""
    if isinstance(outlook.verdict, Infeasible):
        return outlook.verdict.reason
    trial, failure = outlook.smallest(goal.attainment), outlook.largest_failure(goal.attainment)
    if trial is not None:
        assert winner is not None, "whoever keeps the goal has lost to somebody"
        more = trial.fleet.num_gpus - winner.fleet.num_gpus
        if more:
            too_few = f"; {shortfall(failure, goal)}" if failure is not None else ""
            return f"needs {more} GPUs more{too_few}"
        return f"as many GPUs, but {trial.attainment:.1%} of requests inside the limits, not {winner.attainment:.1%}"
    if failure is not None:
        return f"not found to keep the goal; {shortfall(failure, goal)}"
    return f"only estimated: it would keep {outlook.estimated_gpus:.1f} GPUs busy, others fewer"


def shortfall(trial: Trial, goal: Goal) -> str:
    """What a fleet that does not keep the goal falls short in: the limit that fewer requests kept."""
    limits = goal.limits
    if trial.ttft_attainment <= trial.tpot_attainment:
        share, p90_s, limit_s, name = trial.ttft_attainment, trial.ttft_p90_s, limits.ttft_s, "TTFT"
    else:
        share, p90_s, limit_s, name = trial.tpot_attainment, trial.tpot_p90_s, limits.tpot_s, "TPOT"
    p90 = "never" if p90_s is None else milliseconds(p90_s)
    return (
        f"with {trial.fleet.num_gpus} {trial.attainment:.1%} are inside: {name} p90 {p90}, limit "
        f"{milliseconds(limit_s)}, kept by {share:.1%}"
    )


def milliseconds(seconds: float) -> str:
    """For people: with a decimal below 100 ms."""
    return f"{1e3 * seconds:,.1f} ms" if seconds < 0.1 else f"{1e3 * seconds:,.0f} ms"
