"""Many runs of a preset, on all cores: contestants by loads and seeds."""

import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

from loadtest.arrivals import Arrival
from loadtest.clairvoyant import Search
from loadtest.policies.by_name import policy_by_name
from loadtest.presets.preset import CLAIRVOYANT, Contestant, Preset
from loadtest.simulator.outcome import Outcome
from loadtest.simulator.simulation import simulate

KIB = 1024
WATCH_S = 60.0  # between two words about how far a run is
LEAST_S = 1e-9  # keeps rates of an empty load from being of no time
Watch = Callable[[float], None]
"""Hears the virtual time of a run, in seconds."""


def ignore(now_s: float) -> None:
    """A watch that does nothing."""


@dataclass(frozen=True, slots=True)
class Run:
    """One simulation."""

    contestant: Contestant
    load: float
    seed: int


@dataclass(frozen=True, slots=True)
class Score:
    """What came of a run, in requests unless it says otherwise.

    Attributes:
        run: which.
        num_requests: that came.
        num_inside: of those, inside both limits.
        num_ttft_met: whose first token came in time.
        num_tpot_met: whose tokens came fast enough.
        num_finished: that ended with their last token.
        refused: that admission refused, by its reasons.
        num_placed_again: placements after a request's first.
        num_flips: changes of roles.
        num_migrations: moves of running sequences.
        num_lost_workers: workers that died.
        ttft_s: seconds to the first token, of which `PERCENTILES` of the requests have no more; within 1 %.
        tpot_s: seconds per token, likewise.
        goodput: requests per second inside both limits, while requests came.
        prompt_tokens_per_s: of requests that ended, until the last one had.
        answer_tokens_per_s: likewise.
        utilisation: share of all workers' time that their steps took.
    """

    run: Run
    num_requests: int
    num_inside: int
    num_ttft_met: int
    num_tpot_met: int
    num_finished: int
    refused: dict[str, int]
    num_placed_again: int
    num_flips: int
    num_migrations: int
    num_lost_workers: int
    ttft_s: dict[str, float | None]
    tpot_s: dict[str, float | None]
    goodput: float
    prompt_tokens_per_s: float
    answer_tokens_per_s: float
    utilisation: float


PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Timed:
    """A score, and what computing it took; only the score is the same every time.

    Attributes:
        score: what came of the run.
        cpu_s: time of the processor.
        peak_bytes: most memory that the process ever had.
    """

    score: Score
    cpu_s: float
    peak_bytes: int


def score(preset: Preset, run: Run, watch: Watch = ignore) -> Timed:
    """Simulates one run.

    Args:
        preset: the set-up.
        run: which.
        watch: is told how far the arrivals are.

    Raises:
        ConfigError: the preset has no such workers, there is no such policy, a request fits no worker, or a fault
            cannot be simulated.
    """
    begun_s = time.process_time()
    outcome = _outcome(preset, run, watch)
    result = _as_score(run, outcome, preset.fleets[run.contestant.workers].num_workers)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB
    return Timed(result, time.process_time() - begun_s, peak_bytes)


def _as_score(run: Run, outcome: Outcome, num_workers: int) -> Score:
    tally = outcome.tally
    load_s, end_s = max(outcome.load_s, LEAST_S), max(outcome.end_s, LEAST_S)
    return Score(
        run=run,
        num_requests=tally.num_requests,
        num_inside=tally.num_inside,
        num_ttft_met=tally.num_ttft_met,
        num_tpot_met=tally.num_tpot_met,
        num_finished=tally.num_finished,
        refused=dict(sorted(tally.refused.items())),
        num_placed_again=tally.num_placed_again,
        num_flips=len(outcome.flips),
        num_migrations=tally.num_migrations,
        num_lost_workers=len(outcome.losses),
        ttft_s={name: tally.ttft.at(share) for name, share in PERCENTILES.items()},
        tpot_s={name: tally.tpot.at(share) for name, share in PERCENTILES.items()},
        goodput=tally.num_inside / load_s,
        prompt_tokens_per_s=tally.prompt_tokens / end_s,
        answer_tokens_per_s=tally.answer_tokens / end_s,
        utilisation=outcome.busy_s / (num_workers * end_s),
    )


def _outcome(preset: Preset, run: Run, watch: Watch) -> Outcome:
    fleet = preset.fleets[run.contestant.workers]
    arrivals = watched(preset.make(run.load, run.seed), watch)
    if run.contestant.policy == CLAIRVOYANT:
        return Search().best(fleet, list(arrivals), preset.limits, run.seed)
    roles, policy = policy_by_name(run.contestant.policy, fleet.num_workers, preset.limits, preset.look_s)
    return simulate(
        fleet,
        roles,
        arrivals,
        policy,
        preset.limits,
        accepted=preset.accepted,
        faults=preset.faults,
        keeps_jobs=False,
    )


def watched(arrivals: Iterable[Arrival], watch: Watch) -> Iterator[Arrival]:
    """The same arrivals; every minute of them is told."""
    told_s = 0.0
    for arrival in arrivals:
        if arrival.at_s >= told_s + WATCH_S:
            told_s = arrival.at_s
            watch(told_s)
        yield arrival


def sweep(make_preset: Callable[[], Preset], runs: Sequence[Run], watch: Watch = ignore) -> Iterator[Timed]:
    """Scores of runs as they end, computed by as many processes as there are cores; a single run by this one.

    Args:
        make_preset: makes the preset anew in each process; it travels there, so it is a function of a module, or a
            `partial` of one.
        runs: which; the longest first keeps all cores busy to the end.
        watch: is told how far a single run is.
    """
    if len(runs) == 1:
        yield score(make_preset(), runs[0], watch)
        return
    with ProcessPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        futures = [pool.submit(_score_in_process, make_preset, run) for run in runs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _score_in_process(make_preset: Callable[[], Preset], run: Run) -> Timed:
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
