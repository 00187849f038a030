"""`baton experts`: how much each expert of each worker is used, and dividing them anew among a worker's ranks."""

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from core.errors import ConfigError, UnavailableError
from core.experts import ExpertReport
from deploy.commands.options import AsJson, Grpc, Port, output_console, router_address
from deploy.experts_client import get_experts, rebalance_experts

MAX_COLUMNS = 16  # experts shown one by one; of more, the table shows the most used


def experts(
    worker: Annotated[str | None, typer.Argument(metavar="[WORKER]", help="A worker's name. Default: all.")] = None,
    *,
    rebalance: Annotated[
        bool, typer.Option("--rebalance", help="Divide WORKER's experts anew among its ranks, by their use so far.")
    ] = False,
    port: Port = None,
    grpc: Grpc = None,
    as_json: AsJson = False,
) -> None:
    """Show how many tokens went to each expert; with --rebalance, spread the busy ones over the ranks."""
    if rebalance and worker is None:
        raise ConfigError("--rebalance needs the name of a worker, such as `baton experts decode-0 --rebalance`")
    address = router_address(port, grpc)
    if rebalance and worker is not None:
        reports = {worker: rebalance_experts(address, worker)}
    else:
        reports = get_experts(address, worker)
    if as_json:
        typer.echo(json.dumps({name: report_as_dict(report) for name, report in reports.items()}, indent=2))
    else:
        for name, report in reports.items():
            print_report(name, report, output_console())
    refusals = [f"{name}: {report.refusal}" for name, report in reports.items() if report.refusal]
    if refusals:
        raise UnavailableError(f"not rebalanced: {'; '.join(refusals)}")


def report_as_dict(report: ExpertReport) -> dict[str, Any]:
    """All fields but the question's id, and the imbalance of each layer."""
    fields = asdict(report)
    del fields["query_id"]
    for layer, shown in zip(report.layers, fields["layers"], strict=True):
        shown["imbalance"] = layer.imbalance
    return fields


def print_report(worker: str, report: ExpertReport, console: Console) -> None:
    """One line per layer."""
    if not report.layers:
        console.print(f"worker [bold]{worker}[/]: the model has no experts")
        return
    console.print(f"worker [bold]{worker}[/]: tokens per expert; imbalance is most over mean")
    was_rebalanced = any(layer.imbalance_after for layer in report.layers)
    console.print(_table(report, was_rebalanced=was_rebalanced))
    if was_rebalanced:
        console.print(f"{report.num_moved} place(s) for experts were filled anew")


def _table(report: ExpertReport, *, was_rebalanced: bool) -> Table:
    num_experts = len(report.layers[0].tokens)
    is_wide = num_experts > MAX_COLUMNS
    experts_shown = ["most used (expert:tokens)"] if is_wide else [f"e{expert}" for expert in range(num_experts)]
    ranks = ["ranks before", "after"] if was_rebalanced else []
    table = Table("layer", *experts_shown, "imbalance", *ranks, box=None, header_style="dim")
    for layer in report.layers:
        tokens = [_most_used(layer.tokens)] if is_wide else [f"{count}" for count in layer.tokens]
        balance = [f"{layer.imbalance_before:.2f}", f"{layer.imbalance_after:.2f}"] if was_rebalanced else []
        table.add_row(f"{layer.layer}", *tokens, f"{layer.imbalance:.2f}", *balance)
    return table


def _most_used(tokens: tuple[int, ...]) -> str:
    by_use = sorted(range(len(tokens)), key=lambda expert: -tokens[expert])
    return "  ".join(f"{expert}:{tokens[expert]}" for expert in by_use[:MAX_COLUMNS])
