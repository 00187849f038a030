"""The report's tables: figures of all runs, what failed, checks, settings and the machine."""

from collections.abc import Mapping

from loadtest.report.curves import PERCENTILES, TIMES
from loadtest.report.document import Document, Run
from loadtest.report.html import NOTHING, cell, number, table

THROUGHPUT = (
    "run", "sent", "answered", "failed", "requests/s", "in the limits", "share", "prompt tokens/s", "output tokens/s",
    "prompt tokens counted / planned", "of them cached", "client's lag p99", "client's core",
)  # fmt: skip


def throughput_table(document: Document) -> str:
    """One line per run: how much was asked and answered."""
    return table(THROUGHPUT, (_throughput(run) for run in document["runs"]))


def _throughput(run: Run) -> list[str]:
    summary, client = run["summary"], run["client"]
    counted, planned = summary["prompt_tokens"], summary["planned_prompt_tokens"]
    return [
        _run_cell(run),
        cell(f"{summary['requests']:,}"),
        cell(f"{summary['answered']:,}"),
        cell(f"{summary['failed']:,}", is_bad=summary["failed"] > 0),
        cell(number(summary["requests_per_s"])),
        cell(number(summary["goodput"]["requests_per_s"])),
        cell(_percent(summary["goodput"]["share"])),
        cell(number(summary["input_tokens_per_s"])),
        cell(number(summary["output_tokens_per_s"])),
        cell(NOTHING if not planned else f"{counted / planned:.3f}"),
        cell(_percent(summary["cached_tokens"] / counted) if counted else NOTHING),
        cell(f"{client['lag_p99_ms']:.1f} ms"),
        cell(_percent(client["cpu_share"])),
    ]


def _run_cell(run: Run) -> str:
    return cell(run["name"] if run["valid"] else f"{run['name']} (not valid)", is_bad=not run["valid"])


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def times_table(document: Document) -> str:
    """One line per run: percentiles of all kinds of times, in ms."""
    head = ["ms", *(f"{title} {percentile}" for title in TIMES.values() for percentile in PERCENTILES)]
    rows = (
        [_run_cell(run), *(cell(number(_percentile(run, name, one))) for name in TIMES for one in PERCENTILES)]
        for run in document["runs"]
    )
    return table(head, rows)


def _percentile(run: Run, name: str, percentile: str) -> float | None:
    times = run["summary"][name]
    return None if times is None else times[percentile]


def errors_table(document: Document) -> str:
    """What failed, by run and kind; empty when nothing did."""
    rows = [
        [_run_cell(run), cell(kind), cell(f"{error['count']:,}"), cell(error["example"])]
        for run in document["runs"]
        for kind, error in run["summary"]["errors"].items()
    ]
    return table(("run", "kind", "requests", "one of them"), rows, "words") if rows else ""


def faults_table(document: Document) -> str:
    """What was done to the cluster meanwhile; empty when nothing was."""
    rows = [
        [_run_cell(run), cell(f"{fault['at_s']:.1f} s"), cell(fault["what"]), _outcome_cell(fault)]
        for run in document["runs"]
        for fault in run["faults"]
    ]
    return table(("run", "at", "what", "outcome"), rows, "words") if rows else ""


def _outcome_cell(fault: Mapping[str, object]) -> str:
    error = fault["error"]
    return cell(fault.get("outcome") or "done") if error is None else cell(error, is_bad=True)


def checks_table(document: Document) -> str:
    """Targets and whether they hold; empty when there are none."""
    rows = [
        [
            cell(check["name"]),
            cell(f"{number(check['value'])} {check['unit']}"),
            cell(check["target"]),
            cell("holds" if check["holds"] else "missed", is_bad=not check["holds"]),
        ]
        for check in document.get("checks", ())
    ]
    return table(("check", "value", "target", ""), rows) if rows else ""


def named_values_table(head: str, values: Mapping[str, object]) -> str:
    """Settings, or what a machine is."""
    return table((head, ""), ([cell(name), cell(value)] for name, value in values.items()), "words")
