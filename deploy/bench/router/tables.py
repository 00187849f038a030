"""The figures of `baton bench router` for people."""

from typing import Any

from rich.console import Console
from rich.table import Table

from deploy.bench.checks import print_checks

RATES = ("answers_per_s", "tokens_per_s", "answers_per_router_cpu_s", "tokens_per_router_cpu_s")
SHARES = ("router_core", "clients_core", "workers_core", "disturbed")


def print_router_result(result: dict[str, Any], console: Console) -> None:
    """Tables, then the checks."""
    if "decisions" in result:
        _print_decisions(result["decisions"], console)
    runs = [run for api in ("http", "grpc") if api in result for run in result[api]["runs"]]
    if runs:
        _print_runs(runs, console)
    print_checks(result["checks"], console)


def _print_decisions(decisions: dict[str, Any], console: Console) -> None:
    columns = ("us per decision", "of it choosing", "decisions/s", "us per report", "bytes per block")
    table = Table("workers", "blocks", *columns, box=None, header_style="dim")
    for row in decisions["series"]:
        times = (row["us_per_decision"], row["us_choosing"])
        table.add_row(
            f"{row['workers']:,}",
            f"{row['blocks']:,}",
            *(f"{time_us:.1f}" for time_us in times),
            f"{row['decisions_per_s']:,.0f}",
            f"{row['us_per_report']:.1f}",
            f"{row['bytes_per_block']:.0f}",
        )
    console.print(table)
    console.print("Choosing: what it takes longer than with one worker of each kind.", style="dim")


def _print_runs(runs: list[dict[str, Any]], console: Console) -> None:
    rates = ("answers/s", "tokens/s", "answers/CPU s", "tokens/CPU s", "TTFT ms p50")
    table = Table("load", *rates, "router", "clients", "workers", "others", "full", box=None, header_style="dim")
    for run in runs:
        table.add_row(
            run["name"],
            *(f"{run[name]:,.0f}" for name in RATES),
            f"{run['ttft_ms_p50']:.2f}",
            *(f"{run[name]:.0%}" for name in SHARES),
            run["limited_by"],
        )
    console.print(table)
    console.print(
        "Per CPU second of the router, on all its threads. Shares are of a core: the router has one, clients and "
        "workers the other; others are interrupts and other programs on the router's.",
        style="dim",
    )
