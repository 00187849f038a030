"""The figures of a load as tables, and its targets."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploy.bench.checks import at_most, exactly
from loadtest.load.validity import MAX_CPU_SHARE

PERCENTILES = ("p50", "p90", "p99")
TIMES = ("ttft", "tpot", "itl", "e2e")


def load_checks(document: dict[str, Any], max_lag_ms: float) -> list[dict[str, Any]]:
    """What makes a load valid, as targets: the worst of all runs."""
    clients = [run["client"] for run in document["runs"]]
    failed = sum(fault["error"] is not None for run in document["runs"] for fault in run["faults"])
    return [
        at_most("lag_p99_ms", max(client["lag_p99_ms"] for client in clients), "ms", max_lag_ms),
        at_most("client_cpu_share", max(client["cpu_share"] for client in clients), "cores", MAX_CPU_SHARE),
        exactly("failed_faults", failed, "faults", 0),
        exactly("runs_not_valid", sum(not run["valid"] for run in document["runs"]), "runs", 0),
    ]


def print_load(document: dict[str, Any], console: Console) -> None:
    """A row per run, then what failed, what happened, and why a run is not valid."""
    console.print(Text(f"{document['model']} at {document['url']}; times in ms"), soft_wrap=True)
    console.print(_times(document["runs"]))
    console.print(_rates(document["runs"]))
    for run in document["runs"]:
        for line in _notes(run):
            console.print(line, soft_wrap=True)


def _times(runs: list[dict[str, Any]]) -> Table:
    names = [f"{time.upper()} {percentile}" for time in TIMES for percentile in PERCENTILES]
    table = Table("run", *names, box=None, header_style="dim")
    for run in runs:
        summary = run["summary"]
        table.add_row(_name(run), *(_ms(summary[f"{time}_ms"], one) for time in TIMES for one in PERCENTILES))
    return table


def _rates(runs: list[dict[str, Any]]) -> Table:
    columns = (
        "answered",
        "failed",
        "requests/s",
        "in tokens/s",
        "out tokens/s",
        "goodput/s",
        "good",
        "cached",
    )
    table = Table("run", *columns, "lag p99", "client CPU", box=None, header_style="dim")
    for run in runs:
        summary, client = run["summary"], run["client"]
        table.add_row(
            _name(run),
            f"{summary['answered']}",
            f"{summary['failed']}",
            f"{summary['requests_per_s']:.2f}",
            f"{summary['input_tokens_per_s']:.0f}",
            f"{summary['output_tokens_per_s']:.0f}",
            f"{summary['goodput']['requests_per_s']:.2f}",
            f"{100 * summary['goodput']['share']:.0f}%",
            f"{summary['cached_tokens']}",
            f"{client['lag_p99_ms']:.1f} ms",
            f"{100 * client['cpu_share']:.0f}%",
        )
    return table


def _notes(run: dict[str, Any]) -> list[Text]:
    name = run["name"]
    failures = [
        Text(f"{name}: {error['count']} failed, {kind}: {error['example']}")
        for kind, error in run["summary"]["errors"].items()
    ]
    faults = [
        Text(f"{name}: {fault['at_s']:.1f} s {fault['what']}: {fault['error'] or fault['outcome']}")
        for fault in run["faults"]
    ]
    return failures + faults + [Text(f"{name} is NOT VALID: {reason}", style="bold red") for reason in run["reasons"]]


def _name(run: dict[str, Any]) -> str:
    return run["name"] if run["valid"] else f"{run['name']} (not valid)"


def _ms(times: dict[str, float] | None, percentile: str) -> str:
    return "-" if times is None else f"{times[percentile]:.1f}"
