"""Finds the fleet of fewest GPUs for a load: options are estimated, the promising ones simulated.

In each round every option that is still open has one number of workers simulated under each policy. What is asked
next depends on what came out, never on when, so the same load gives the same plan on any machine.
"""

import math
from collections.abc import Iterator, Sequence

from loadtest.arrivals import Arrival
from loadtest.planner.demand import Demand, demand_of
from loadtest.planner.option import Estimate, Infeasible, WorkerOption, estimate
from loadtest.planner.plan import Goal, Outlook, Plan, ranking
from loadtest.planner.pool import Simulate
from loadtest.planner.smallest import SmallestNumber
from loadtest.planner.trial import PREFIX_BLOCK_TOKENS, Fleet, policies_for

WORTH_KNOWING = 2  # times the GPUs of the best plan: of what needs more it is enough to know that


def search(options: Sequence[WorkerOption], arrivals: Sequence[Arrival], goal: Goal, simulate: Simulate) -> Plan:
    """Finds the plan of fewest GPUs.

    Args:
        options: ways to build a worker, no two of them alike.
        arrivals: the load, in order of time.
        goal: what the plan must do.
        simulate: see `loadtest.planner.pool`.

    Raises:
        ConfigError: the load has no rate.
    """
    demand = demand_of(arrivals, goal.attainment, PREFIX_BLOCK_TOKENS)
    outlooks = [Outlook(option, _verdict(option, demand, goal)) for option in options]
    feasible = [one for one in outlooks if isinstance(one.verdict, Estimate)]
    promising = sorted(feasible, key=lambda one: one.estimated_gpus)[: goal.num_simulated]
    _simulate_all([(one, _numbers(one, goal)) for one in promising], goal, simulate)
    return Plan(demand, goal, sorted(outlooks, key=lambda one: ranking(one, goal.attainment)))


def _verdict(option: WorkerOption, demand: Demand, goal: Goal) -> Estimate | Infeasible:
    if option.num_gpus > goal.max_gpus:
        return Infeasible(f"GPUs: a worker has {option.num_gpus}, the plan may have {goal.max_gpus}")
    return estimate(option, demand, goal.limits)


def _numbers(outlook: Outlook, goal: Goal) -> SmallestNumber:
    """Of workers, from as many as the load keeps busy."""
    guess = math.ceil(outlook.estimated_gpus / outlook.option.num_gpus)
    return SmallestNumber(max(1, guess), goal.max_gpus // outlook.option.num_gpus)


def _simulate_all(searches: Sequence[tuple[Outlook, SmallestNumber]], goal: Goal, simulate: Simulate) -> None:
    while asked := [(outlook, number) for outlook, numbers in searches if (number := numbers.next) is not None]:
        tried = [(outlook, fleet) for outlook, number in asked for fleet in _fleets(outlook, number)]
        trials = simulate([fleet for _, fleet in tried])
        for (outlook, fleet), trial in zip(tried, trials, strict=True):
            outlook.trials.setdefault(fleet.num_workers, []).append(trial)
        for outlook, numbers in searches:
            if (number := numbers.next) is not None:
                numbers.answer(does=outlook.best(number).attainment >= goal.attainment)
        _stop_the_hopeless(searches)


def _fleets(outlook: Outlook, num_workers: int) -> Iterator[Fleet]:
    assert isinstance(outlook.verdict, Estimate), f"{outlook.option.name} cannot be"
    for policy in policies_for(outlook.verdict, num_workers):
        yield Fleet(outlook.option, outlook.verdict.max_num_seqs, num_workers, policy)


def _stop_the_hopeless(searches: Sequence[tuple[Outlook, SmallestNumber]]) -> None:
    found = [numbers.found * outlook.option.num_gpus for outlook, numbers in searches if numbers.found is not None]
    if found:
        for outlook, numbers in searches:
            numbers.limit(max(1, WORTH_KNOWING * min(found) // outlook.option.num_gpus))
