"""Trials of fleets on all cores."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

from loadtest.arrivals import Arrival
from loadtest.planner.trial import Fleet, Trial, run_trial
from router.roles.snapshot import Limits

Simulate = Callable[[Sequence[Fleet]], Sequence[Trial]]
"""Trials of fleets, in the order of the fleets."""


@contextmanager
def on_all_cores(
    arrivals: Sequence[Arrival], limits: Limits, on_trial: Callable[[Trial], None]
) -> Iterator[Simulate]:
    """Simulates fleets in as many processes as there are cores.

    Args:
        arrivals: the load; goes to each process once.
        limits: of every request.
        on_trial: called with each trial, for progress.
    """
    with ProcessPoolExecutor(
        max_workers=len(os.sched_getaffinity(0)), initializer=_take_load, initargs=(arrivals, limits)
    ) as pool:

        def simulate(fleets: Sequence[Fleet]) -> list[Trial]:
            trials = []
            for trial in pool.map(_run_in_process, fleets):
                trials.append(trial)
                on_trial(trial)
            return trials

        try:
            yield simulate
        finally:
            pool.shutdown(cancel_futures=True)


_load: tuple[Sequence[Arrival], Limits]  # of a process of the pool, from its start to its end


def _take_load(arrivals: Sequence[Arrival], limits: Limits) -> None:
    global _load  # noqa: PLW0603 - the only way from a pool's initializer to its tasks
    _load = arrivals, limits


def _run_in_process(fleet: Fleet) -> Trial:
    return run_trial(fleet, *_load)
