"""Many runs of a preset, on all cores: contestants by loads and seeds."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

from loadtest.clairvoyant import Search
from loadtest.policies.by_name import policy_by_name
from loadtest.presets.preset import CLAIRVOYANT, Contestant, Preset
from loadtest.simulator.outcome import Outcome
from loadtest.simulator.simulation import simulate


@dataclass(frozen=True, slots=True)
class Run:
    """One simulation."""

    contestant: Contestant
    load: float
    seed: int


@dataclass(frozen=True, slots=True)
class Score:
    """What came of a run, in requests.

    Attributes:
        run: which.
        num_requests: that came.
        num_inside: of those, inside both limits.
        num_ttft_met: whose first token came in time.
        num_tpot_met: whose tokens came fast enough.
        num_flips: changes of roles.
        num_migrations: moves of running sequences.
    """

    run: Run
    num_requests: int
    num_inside: int
    num_ttft_met: int
    num_tpot_met: int
    num_flips: int
    num_migrations: int


def score(preset: Preset, run: Run) -> Score:
    """Simulates one run.

    Raises:
        ConfigError: the preset has no such workers, there is no such policy, or a request fits no worker.
    """
    outcome = _outcome(preset, run)
    return Score(
        run=run,
        num_requests=outcome.tally.num_requests,
        num_inside=outcome.num_inside,
        num_ttft_met=outcome.tally.num_ttft_met,
        num_tpot_met=outcome.tally.num_tpot_met,
        num_flips=len(outcome.flips),
        num_migrations=outcome.num_migrations,
    )


def _outcome(preset: Preset, run: Run) -> Outcome:
    fleet = preset.fleets[run.contestant.workers]
    arrivals = preset.make(run.load, run.seed)
    if run.contestant.policy == CLAIRVOYANT:
        return Search().best(fleet, arrivals, preset.limits, run.seed)
    roles, policy = policy_by_name(run.contestant.policy, fleet.num_workers, preset.limits)
    return simulate(fleet, roles, arrivals, policy, preset.limits)


def sweep(make_preset: Callable[[], Preset], runs: Sequence[Run]) -> Iterator[Score]:
    """Scores of runs as they end, computed by as many processes as there are cores.

    Args:
        make_preset: makes the preset anew in each process; it travels there, so it is a function of a module, or a
            `partial` of one.
        runs: which; the longest first keeps all cores busy to the end.
    """
    with ProcessPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        futures = [pool.submit(_score_in_process, make_preset, run) for run in runs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _score_in_process(make_preset: Callable[[], Preset], run: Run) -> Score:
    return score(make_preset(), run)


@dataclass(frozen=True, slots=True)
class Curve:
    """How a contestant does as the load rises.

    Attributes:
        contestant: who.
        attainment: share of all requests inside both limits, by load.
    """

    contestant: Contestant
    attainment: dict[float, float]

    def sustained(self, target: float) -> float:
        """The highest load of the sweep with at least that share; 0 when there is none."""
        return max((load for load, share in self.attainment.items() if share >= target), default=0.0)


def curves(scores: Iterable[Score]) -> list[Curve]:
    """One for each contestant; seeds are taken together."""
    sums: dict[Contestant, dict[float, tuple[int, int]]] = {}
    for one in scores:
        by_load = sums.setdefault(one.run.contestant, {})
        inside, total = by_load.get(one.run.load, (0, 0))
        by_load[one.run.load] = inside + one.num_inside, total + one.num_requests
    return [
        Curve(contestant, {load: inside / max(1, total) for load, (inside, total) in sorted(by_load.items())})
        for contestant, by_load in sums.items()
    ]
