"""`baton bench chaos`: what clients notice of workers and routers that die."""

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from deploy.bench.checks import print_checks, write_result
from deploy.commands.bench_roles import JsonFile, Model, positive
from deploy.commands.serve import progress_lines
from deploy.demo_model import ensure_demo_model


def bench_chaos(
    *,
    model: Model = None,
    requests: Annotated[int, typer.Option(help="Requests under faults that make a run count.", min=1)] = 300,
    duration_s: Annotated[float, typer.Option(help="Seconds that the faults last.")] = 240.0,
    seed: Annotated[int, typer.Option(help="Of what is asked when, and of the faults.", min=0)] = 0,
    json_file: JsonFile = None,
) -> None:
    """Kill, stop and flip workers under load, and compare every answer with that of an undisturbed run."""
    from deploy.bench.chaos.chaos_bench import ChaosBench  # noqa: PLC0415 - see `deploy.commands.bench`

    plan = ChaosBench(requests, positive("--duration-s", duration_s), seed)
    result = plan.run(model or ensure_demo_model(), progress_lines(Console(stderr=True, highlight=False)))
    write_result(result, json_file)
    print_chaos_result(result, Console())


def print_chaos_result(result: dict[str, Any], console: Console) -> None:
    """The faults, one line per run of the requests, what was wrong, and the targets."""
    console.print(", ".join(f"{fault}: {count}" for fault, count in sorted(result["faults"].items())))
    columns = ("requests", "lost", "wrong", "longest pause s", "longest TTFT s", "reconnects")
    table = Table("run", *columns, box=None, header_style="dim")
    for name in ("undisturbed", "storm"):
        run = result[name]
        times = (f"{run['longest_pause_s']:.2f}", f"{run['longest_ttft_s']:.2f}")
        counts = (f"{run[column]}" for column in ("requests", "lost", "wrong"))
        table.add_row(name, *counts, *times, f"{run['reconnects']}")
    console.print(table)
    for error in result["storm"]["errors"]:
        console.print(error, markup=False)
    print_checks(result["checks"], console)
