"""`baton simulate`: how much load a fleet sustains under different ways of choosing roles, on a virtual clock."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from core.errors import ConfigError
from deploy.bench.checks import write_result
from deploy.commands.options import output_console
from deploy.commands.simulate_setup import Setup, chosen_contestants, parse_loads
from deploy.commands.simulate_tables import as_result, print_result
from deploy.commands.simulate_validation import validate as validate_simulator
from loadtest.load.faults import parse_fault
from loadtest.presets.preset import CLAIRVOYANT
from loadtest.sweep import Run, Timed, sweep
from router.roles.snapshot import Limits


def simulate(
    *,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Fleet and load: arrow, the default; mooncake, which needs --trace; or day, which may have one."
        ),
    ] = None,
    fleet: Annotated[
        Path | None, typer.Option(help="A fleet of your own, a .toml or .json file; needs --trace and both limits.")
    ] = None,
    trace: Annotated[Path | None, typer.Option(help="Requests: Mooncake's .jsonl or Azure's .csv.")] = None,
    loads: Annotated[str, typer.Option(help="Loads to simulate, such as 2.4,3.2. Default: the preset's.")] = "",
    seed: Annotated[list[int] | None, typer.Option(help="Of the arrivals; may be repeated.")] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="Only these, on each kind of workers: auto, arrow, mixed, clairvoyant, static:P:D."),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(help="A fault, such as '30s kill worker-3' or '60s flip worker-0'; may be repeated."),
    ] = None,
    admit_ttft_ms: Annotated[
        float | None,
        typer.Option(help="Refuse what is predicted later, as a router does; 0: accept all. Default: the preset's."),
    ] = None,
    slo_ttft_ms: Annotated[float, typer.Option(help="Limit on the time to first token, with --fleet.")] = 0.0,
    slo_tpot_ms: Annotated[float, typer.Option(help="Limit on the mean time per token, with --fleet.")] = 0.0,
    validate: Annotated[
        bool, typer.Option("--validate", help="Instead compare predictions with a cluster on this machine.")
    ] = False,
    model: Annotated[
        Path | None, typer.Option(help="Checkpoint folder, for --validate. Default: the demo model.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures here.")] = None,
) -> None:
    """Simulate a load at rising strength under static roles, published algorithms, and Baton's own controller."""
    if validate:
        check_alone(preset, fleet, trace, loads, policy, at, admit_ttft_ms, slo_ttft_ms, slo_tpot_ms)
        validate_simulator(model, (seed or [0])[0], json_file)
        return
    if model is not None:
        raise ConfigError(f"--model is {model}, but nothing is computed in a simulation; it is for --validate")
    setup = Setup(
        preset=preset or "arrow",
        fleet=fleet,
        trace=trace,
        limits=Limits(slo_ttft_ms / 1000, slo_tpot_ms / 1000) if slo_ttft_ms or slo_tpot_ms else None,
        loads=parse_loads(loads),
        seeds=tuple(seed or ()),
        faults=tuple(map(parse_fault, at or ())),
        admit_ttft_s=None if admit_ttft_ms is None else admit_ttft_ms / 1000,
    )
    chosen = setup.make()
    contestants = chosen_contestants(chosen, policy or [])
    runs = [Run(one, load, seed) for one in contestants for load in chosen.loads for seed in chosen.seeds]
    runs.sort(key=lambda run: (run.contestant.policy != CLAIRVOYANT, -run.load))
    timed = with_progress(setup, runs, Console(stderr=True))
    result = as_result(chosen, contestants, timed)
    write_result(result, json_file)
    print_result(chosen, contestants, [one.score for one in timed], result["checks"], output_console())


def check_alone(*others: object) -> None:
    """Makes sure that nothing is said beside `--validate` that it would not heed.

    Raises:
        ConfigError: something is.
    """
    if said := [other for other in others if other]:
        raise ConfigError(f"--validate has loads and a cluster of its own; leave out what says {said[0]}")


def with_progress(setup: Setup, runs: Sequence[Run], console: Console) -> list[Timed]:
    """All scores; runs are counted in the terminal, and of a single one the virtual time."""
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("simulating", total=len(runs))

        def watch(now_s: float) -> None:
            progress.update(task, description=f"simulating, {now_s / 3600:.1f} h are over")

        timed = []
        for one in sweep(setup.make, runs, watch):
            progress.advance(task)
            timed.append(one)
        return timed
