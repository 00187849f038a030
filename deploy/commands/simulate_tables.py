"""What `baton simulate` found, as JSON, checks and tables."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from deploy.bench.checks import at_least, at_most, print_checks
from deploy.commands.simulate_setup import DAY
from loadtest.presets.preset import Contestant, Preset
from loadtest.sweep import Curve, Score, Timed, curves

DAY_SECONDS = 600.0
DAY_PEAK_GIB = 4.0
GIB = 2**30
MOST_DETAILED = 12  # runs of which each has a line of its own


def as_result(preset: Preset, contestants: Sequence[Contestant], timed: Sequence[Timed]) -> dict[str, Any]:
    """All figures; `checks` has those whose contestants were simulated."""
    scores = sorted((one.score for one in timed), key=_order)
    by_contestant = {curve.contestant: curve for curve in curves(scores)}
    sustained = {one: by_contestant[one].sustained(preset.target) for one in contestants}
    return {
        "preset": preset.name,
        "limits": asdict(preset.limits),
        "target": preset.target,
        "unit": preset.unit,
        "seeds": preset.seeds,
        "admit_ttft_s": None if preset.accepted is None else preset.accepted.ttft_s,
        "faults": [asdict(fault) for fault in preset.faults],
        "contestants": [
            {**asdict(one), "sustained": sustained[one], "attainment": by_contestant[one].attainment}
            for one in contestants
        ],
        "runs": [asdict(score) for score in scores],
        "checks": [*checks(preset, sustained), *(day_checks(timed) if preset.name == DAY else [])],
    }


def _order(score: Score) -> tuple[str, str, float, int]:
    run = score.run
    return run.contestant.workers, run.contestant.policy, run.load, run.seed


def checks(preset: Preset, sustained: dict[Contestant, float]) -> list[dict[str, Any]]:
    """What ours sustains beside the best of each ratio's rivals."""
    judged = [ratio for ratio in preset.ratios if {preset.ours, *ratio.rivals} <= sustained.keys()]
    result = []
    for ratio in judged:
        best = max(sustained[rival] for rival in ratio.rivals)
        value = sustained[preset.ours] / best if best else 0.0
        result.append(at_least(ratio.name, value, "x", ratio.target))
    return result


def day_checks(timed: Sequence[Timed]) -> list[dict[str, Any]]:
    """What simulating a day took, of the run that took most; none where no run has all of its requests."""
    whole = [one for one in timed if one.score.run.load >= 1]
    if not whole:
        return []
    return [
        at_most("day_seconds", max(one.cpu_s for one in whole), "CPU s", DAY_SECONDS),
        at_most("day_peak_gib", max(one.peak_bytes for one in whole) / GIB, "GiB", DAY_PEAK_GIB),
    ]


def print_result(
    preset: Preset,
    contestants: Sequence[Contestant],
    scores: Sequence[Score],
    checked: list[dict[str, Any]],
    console: Console,
) -> None:
    """One line for each contestant: the share of requests inside both limits, by load. A few runs get details."""
    limits = preset.limits
    console.print(f"inside a TTFT of {limits.ttft_s:g} s and a TPOT of {limits.tpot_s:g} s, %, by {preset.unit}:")
    by_contestant = {curve.contestant: curve for curve in curves(scores)}
    table = Table(
        "workers", "roles", *(f"{load:g}" for load in preset.loads), "sustained", box=None, header_style="dim"
    )
    for one in contestants:
        curve = by_contestant[one]
        table.add_row(one.workers, one.policy, *_cells(curve, preset), f"{curve.sustained(preset.target):g}")
    console.print(table)
    if len(scores) <= MOST_DETAILED:
        console.print(_details(sorted(scores, key=_order)))
    print_checks(checked, console)


def _cells(curve: Curve, preset: Preset) -> list[str]:
    return [f"{100 * curve.attainment[load]:.0f}" for load in preset.loads]


def _details(scores: Sequence[Score]) -> Table:
    """What came of each run."""
    table = Table(
        *("workers", "roles", "load", "seed", "requests", "refused", "TTFT p50/p90/p99 s", "TPOT p50/p90/p99 ms"),
        *("goodput/s", "prompt tok/s", "answer tok/s", "busy %", "flips", "moved", "lost", "again"),
        box=None,
        header_style="dim",
    )
    for one in scores:
        table.add_row(
            *(one.run.contestant.workers, one.run.contestant.policy, f"{one.run.load:g}", str(one.run.seed)),
            *(str(one.num_requests), str(sum(one.refused.values()))),
            *(_spread(one.ttft_s, 1.0), _spread(one.tpot_s, 1000.0), f"{one.goodput:.2f}"),
            *(f"{one.prompt_tokens_per_s:.0f}", f"{one.answer_tokens_per_s:.0f}", f"{100 * one.utilisation:.0f}"),
            *map(str, (one.num_flips, one.num_migrations, one.num_lost_workers, one.num_placed_again)),
        )
    return table


def _spread(times_s: dict[str, float | None], factor: float) -> str:
    return "/".join("-" if seconds is None else f"{factor * seconds:.3g}" for seconds in times_s.values())
