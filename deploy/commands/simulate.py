"""`baton simulate`: how much load a fleet sustains under different ways of choosing roles, on a virtual clock."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from core.errors import ConfigError
from deploy.bench.checks import at_least, print_checks, write_result
from deploy.commands.options import output_console
from loadtest.policies.by_name import policy_by_name
from loadtest.presets.arrow import arrow_preset
from loadtest.presets.mooncake import mooncake_preset
from loadtest.presets.preset import CLAIRVOYANT, Contestant, Preset
from loadtest.sweep import Curve, Run, Score, curves, sweep

PRESETS = ("arrow", "mooncake")


def simulate(
    *,
    preset: Annotated[str, typer.Option(help="Fleet and load: arrow, or mooncake, which needs --trace.")] = "arrow",
    trace: Annotated[Path | None, typer.Option(help="Mooncake's trace, a .jsonl file.")] = None,
    loads: Annotated[str, typer.Option(help="Loads to simulate, such as 2.4,3.2. Default: the preset's.")] = "",
    seed: Annotated[list[int] | None, typer.Option(help="Of the arrivals; may be repeated.")] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="Only these, on each kind of workers: auto, arrow, mixed, clairvoyant, static:P:D."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures here.")] = None,
) -> None:
    """Simulate a load at rising strength under static roles, published algorithms, and Baton's own controller."""
    make = preset_maker(preset, trace, loads, seed or [])
    chosen = make()
    contestants = chosen_contestants(chosen, policy or [])
    runs = [Run(one, load, seed) for one in contestants for load in chosen.loads for seed in chosen.seeds]
    runs.sort(key=lambda run: (run.contestant.policy != CLAIRVOYANT, -run.load))
    scores = list(with_progress(sweep(make, runs), len(runs), Console(stderr=True)))
    result = as_result(chosen, contestants, scores)
    write_result(result, json_file)
    print_result(chosen, contestants, scores, result["checks"], output_console())


def preset_maker(name: str, trace: Path | None, loads: str, seeds: Sequence[int]) -> Callable[[], Preset]:
    """What makes the preset, here and in other processes.

    Raises:
        ConfigError: there is no such preset, or it needs a trace, or has no use for one.
    """
    if name not in PRESETS:
        raise ConfigError(f"--preset {name!r} is none; take one of {', '.join(PRESETS)}")
    if (name == "mooncake") != (trace is not None):
        needs = "needs --trace FILE: mooncake_conversation.jsonl" if trace is None else "has no use for --trace"
        raise ConfigError(f"--preset {name} {needs}")
    return partial(_make_preset, trace, parse_loads(loads), tuple(seeds))


def _make_preset(trace: Path | None, loads: tuple[float, ...], seeds: tuple[int, ...]) -> Preset:
    preset = arrow_preset() if trace is None else mooncake_preset(trace)
    return replace(preset, loads=loads or preset.loads, seeds=seeds or preset.seeds)


def parse_loads(text: str) -> tuple[float, ...]:
    """Loads from `2.4,3.2`, in rising order; none from an empty text.

    Raises:
        ConfigError: not positive numbers.
    """
    try:
        loads = {float(part) for part in text.split(",")} if text else set()
    except ValueError:
        loads = {0.0}
    if not all(0 < load < float("inf") for load in loads):
        raise ConfigError(f"--loads is {text!r}; it must be positive numbers separated by commas, such as 2.4,3.2")
    return tuple(sorted(loads))


def chosen_contestants(preset: Preset, policies: Sequence[str]) -> tuple[Contestant, ...]:
    """The preset's, or those with the given policies on each kind of workers.

    Raises:
        ConfigError: there is no such policy.
    """
    if not policies:
        return preset.contestants
    for fleet in preset.fleets.values():
        for name in policies:
            if name != CLAIRVOYANT:
                policy_by_name(name, fleet.num_workers, preset.limits)
    return tuple(Contestant(kind, name) for kind in preset.fleets for name in policies)


def with_progress(scores: Iterator[Score], num_runs: int, console: Console) -> Iterator[Score]:
    """The same scores, counted in the terminal."""
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("simulating", total=num_runs)
        for score in scores:
            progress.advance(task)
            yield score


def as_result(preset: Preset, contestants: Sequence[Contestant], scores: Sequence[Score]) -> dict[str, Any]:
    """All figures; `checks` has those whose contestants were simulated."""
    by_contestant = {curve.contestant: curve for curve in curves(scores)}
    sustained = {one: by_contestant[one].sustained(preset.target) for one in contestants}
    return {
        "preset": preset.name,
        "limits": asdict(preset.limits),
        "target": preset.target,
        "unit": preset.unit,
        "seeds": preset.seeds,
        "contestants": [
            {**asdict(one), "sustained": sustained[one], "attainment": by_contestant[one].attainment}
            for one in contestants
        ],
        "runs": [asdict(score) for score in sorted(scores, key=_order)],
        "checks": checks(preset, sustained),
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


def print_result(
    preset: Preset,
    contestants: Sequence[Contestant],
    scores: Sequence[Score],
    checked: list[dict[str, Any]],
    console: Console,
) -> None:
    """One line for each contestant: the share of requests inside both limits, by load."""
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
    print_checks(checked, console)


def _cells(curve: Curve, preset: Preset) -> list[str]:
    return [f"{100 * curve.attainment[load]:.0f}" for load in preset.loads]
