"""`baton bench flip` and `baton bench swing`: what changes of role cost, and what they bring."""

import math
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from core.errors import ConfigError
from deploy.bench.checks import print_checks, write_result
from deploy.bench.roles.goodput import Slo
from deploy.commands.serve import progress_lines
from deploy.demo_model import ensure_demo_model

Model = Annotated[Path | None, typer.Option(help="Checkpoint folder. Default: the demo model.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write all figures here.")]
WAYS = {"live": "live", "drain_then_flip": "drain, then flip", "restart": "restart"}


def bench_flip(
    *,
    model: Model = None,
    streams: Annotated[int, typer.Option(help="Answers under way all the time.", min=2)] = 16,
    output_tokens: Annotated[int, typer.Option(help="Tokens of each of them.", min=2)] = 400,
    prompt_tokens: Annotated[int, typer.Option(help="Tokens of each new prompt beside them.", min=1)] = 16,
    prompt_every_ms: Annotated[float, typer.Option(help="Milliseconds between two new prompts.")] = 50.0,
    rounds: Annotated[int, typer.Option(help="Flips in either direction.", min=1)] = 4,
    json_file: JsonFile = None,
) -> None:
    """Change roles under load, live and in the naive ways: time to first work, gaps in streams, work done twice."""
    from deploy.bench.roles.flip_bench import FlipBench  # noqa: PLC0415 - see `deploy.commands.bench`

    plan = FlipBench(
        streams, output_tokens, prompt_tokens, positive("--prompt-every-ms", prompt_every_ms) / 1000, rounds
    )
    result = plan.run(model or ensure_demo_model(), progress_lines(Console(stderr=True, highlight=False)))
    write_result(result, json_file)
    print_flip_result(result, Console())


def bench_swing(
    *,
    model: Model = None,
    segment_s: Annotated[float, typer.Option(help="Seconds of each of the load's three segments.")] = 40.0,
    slo_ttft_ms: Annotated[float, typer.Option(help="Time to first token that counts as in time.")] = 2000.0,
    slo_tpot_ms: Annotated[float, typer.Option(help="Mean time per further token that counts as in time.")] = 150.0,
    seed: Annotated[int, typer.Option(help="Of the arrivals.", min=0)] = 0,
    json_file: JsonFile = None,
) -> None:
    """Send a load that swings from prompts to answers and back to fixed splits, and to roles that follow it."""
    from deploy.bench.roles.swing_bench import SwingBench  # noqa: PLC0415 - see `deploy.commands.bench`

    slo = Slo(positive("--slo-ttft-ms", slo_ttft_ms) / 1000, positive("--slo-tpot-ms", slo_tpot_ms) / 1000)
    plan = SwingBench(positive("--segment-s", segment_s), slo, seed)
    result = plan.run(model or ensure_demo_model(), progress_lines(Console(stderr=True, highlight=False)))
    write_result(result, json_file)
    print_swing_result(result, Console())


def positive(flag: str, value: float) -> float:
    """A value as it is.

    Raises:
        ConfigError: it is not positive and finite.
    """
    if not 0 < value < math.inf:
        raise ConfigError(f"{flag} is {value:g}; it must be positive and finite")
    return value


def print_flip_result(result: dict[str, Any], console: Console) -> None:
    """One line per way to change a role, and the targets."""
    columns = ("first work ms p50", "longest gap ms", "of its limit", "failed", "computed twice")
    table = Table("way", *columns, box=None, header_style="dim")
    for way, name in WAYS.items():
        figures = result[way]
        table.add_row(
            name,
            f"{figures['first_work_ms_p50']:.0f}",
            f"{figures['longest_gap_ms']:.0f}",
            f"{figures['longest_gap_vs_itl']:.2f}",
            f"{figures['requests_failed']}",
            f"{figures['tokens_recomputed']}",
        )
    console.print(table)
    print_checks(result["checks"], console)


def print_swing_result(result: dict[str, Any], console: Console) -> None:
    """One line per run of the load, and the targets."""
    columns = ("requests", "in time", "goodput/s", "TTFT ms p50", "TPOT ms p50", "failed", "changes")
    table = Table("roles", *columns, box=None, header_style="dim")
    for name, run in result["runs"].items():
        rates = (run["goodput_per_s"], run["ttft_ms_p50"], run["tpot_ms_p50"])
        counts = (f"{run['num_requests']}", f"{run['requests_in_time']}")
        ends = (f"{run['requests_failed']}", f"{run['role_changes']}")
        table.add_row(name, *counts, *(f"{rate:.3g}" for rate in rates), *ends)
    console.print(table)
    print_checks(result["checks"], console)
