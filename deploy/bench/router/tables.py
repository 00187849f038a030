"""The figures of `baton bench router` for people."""

from typing import Any

from rich.console import Console
from rich.table import Table

from deploy.bench.checks import print_checks


def print_router_result(result: dict[str, Any], console: Console) -> None:
    """Tables, then the checks."""
    if "decisions" in result:
        _print_decisions(result["decisions"], console)
    runs = [run for api in ("http", "grpc") if api in result for run in result[api]["runs"]]
    if runs:
        _print_runs(runs, console)
    print_checks(result["checks"], console)


def _print_decisions(decisions: dict[str, Any], console: Console) -> None:
    table = Table(
        "workers",
        "blocks",
        "us per decision",
        "decisions/s",
        "us per report",
        "bytes per block",
        box=None,
        header_style="dim",
    )
    for row in decisions["series"]:
        rates = f"{row['us_per_decision']:.1f}", f"{row['decisions_per_s']:,.0f}", f"{row['us_per_report']:.1f}"
        table.add_row(f"{row['workers']:,}", f"{row['blocks']:,}", *rates, f"{row['bytes_per_block']:.0f}")
    console.print(table)


def _print_runs(runs: list[dict[str, Any]], console: Console) -> None:
    columns = (
        "answers/s",
        "tokens/s",
        "tokens/router s",
        "TTFT ms p50",
        "router",
        "clients",
        "workers",
        "limited by",
    )
    table = Table("load", *columns, box=None, header_style="dim")
    for run in runs:
        rates = (run["answers_per_s"], run["tokens_per_s"], run["tokens_per_router_cpu_s"])
        shares = (run["router_core"], run["clients_core"], run["workers_core"])
        table.add_row(
            run["name"],
            *(f"{rate:,.0f}" for rate in rates),
            f"{run['ttft_ms_p50']:.2f}",
            *(f"{share:.0%}" for share in shares),
            run["limited_by"],
        )
    console.print(table)
