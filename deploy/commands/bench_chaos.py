"""`baton bench chaos`: what clients notice of workers and routers that die, and what too much load does."""

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from core.errors import ConfigError
from deploy.bench.checks import print_checks, write_result
from deploy.commands.bench_roles import JsonFile, positive
from deploy.commands.serve import progress_lines

REQUESTS = 300
FAULTS_S = 240.0  # with start-up, the undisturbed run and the end about five minutes
SOAK_S = 600.0


def bench_chaos(
    *,
    model: Annotated[
        Path | None,
        typer.Option(help="Checkpoint folder. Default: a tiny random one, fast enough for many faults."),
    ] = None,
    requests: Annotated[
        int | None, typer.Option(help="Requests under faults that make a run count. Default: 300.", min=1)
    ] = None,
    duration_s: Annotated[
        float | None, typer.Option(help="Seconds that it lasts. Default: 240 of faults, 600 of a soak.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of what is asked when, and of the faults.", min=0)] = 0,
    soak: Annotated[bool, typer.Option("--soak", help="No faults: twice the load that can be answered.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Kill and stop workers and routers, flip roles, and compare every answer with that of an undisturbed run."""
    from deploy.bench.chaos.chaos_bench import ChaosBench  # noqa: PLC0415 - see `deploy.commands.bench`
    from deploy.bench.chaos.soak import SoakBench  # noqa: PLC0415 - likewise
    from deploy.bench.tiny_model import write_tiny_model  # noqa: PLC0415 - likewise

    if soak and requests is not None:
        raise ConfigError(f"--requests is {requests}, but --soak has no faults to count them under; leave one out")
    if duration_s is None:
        duration_s = SOAK_S if soak else FAULTS_S
    seconds = positive("--duration-s", duration_s)
    plan = SoakBench(seconds, seed) if soak else ChaosBench(requests or REQUESTS, seconds, seed)
    with tempfile.TemporaryDirectory(prefix="baton-bench-") as folder:
        model_dir = model or write_tiny_model(Path(folder) / "tiny")
        result = plan.run(model_dir, progress_lines(Console(stderr=True, highlight=False)))
    write_result(result, json_file)
    (print_soak_result if soak else print_chaos_result)(result, Console())


def print_chaos_result(result: dict[str, Any], console: Console) -> None:
    """The faults, one line per run of the requests, what was wrong, and the targets."""
    console.print(", ".join(f"{fault}: {count}" for fault, count in sorted(result["faults"].items())))
    columns = ("requests", "lost", "wrong", "longest pause s", "longest TTFT s", "longest whole s", "reconnects")
    table = Table("run", *columns, box=None, header_style="dim")
    for name in ("undisturbed", "storm"):
        run = result[name]
        times = (f"{run[column]:.2f}" for column in ("longest_pause_s", "longest_ttft_s", "longest_whole_s"))
        counts = (f"{run[column]}" for column in ("requests", "lost", "wrong"))
        table.add_row(name, *counts, *times, f"{run['reconnects']}")
    console.print(table)
    for error in result["storm"]["errors"]:
        console.print(error, markup=False)
    print_checks(result["checks"], console)


def print_soak_result(result: dict[str, Any], console: Console) -> None:
    """What became of the requests, the memory of every process over time, and the targets."""
    counts = f"{result['answered']} answered, {result['refused']} refused, {len(result['failures'])} failed"
    console.print(f"{counts}, at twice a capacity of {result['capacity_per_s']:.2f} requests/s")
    names = list(result["memory_growth"])
    table = Table("after s", *(f"{name} MiB" for name in names), box=None, header_style="dim")
    for row in result["memory"]:
        table.add_row(f"{row['at_s']:.0f}", *(f"{row['rss_mib'][name]:.0f}" for name in names))
    console.print(table)
    for failure in result["failures"]:
        console.print(failure, markup=False)
    print_checks(result["checks"], console)
