"""The report of a load: one HTML file that needs nothing else, made of what `baton load --json` writes."""

from collections.abc import Iterator
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from plotly.offline import get_plotlyjs

from loadtest.report.curves import cdf_figures, goodput_figure, percentile_figures
from loadtest.report.document import Document, Run
from loadtest.report.html import element, plot, text
from loadtest.report.tables import (
    checks_table,
    errors_table,
    faults_table,
    named_values_table,
    throughput_table,
    times_table,
)
from loadtest.report.timeline import points_drawn, timeline_figure

NUM_OPEN = 2  # runs whose timelines are shown at once; those of others unfold


def write_report(document: Document, file: Path) -> None:
    """Writes the page; the document has the form that `loadtest.report.document` describes.

    Raises:
        OSError: the file cannot be written.
    """
    file.write_text(report_page(document), encoding="utf-8")


def report_page(document: Document) -> str:
    """The page with its style, its script and plotly.js."""
    return Template(_asset("page.html")).substitute(
        title=escape(f"Load on {document['url']}"),
        style=_asset("page.css"),
        script=_asset("page.js"),
        plotly=get_plotlyjs(),
        body="\n".join(_body(document)),
    )


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _body(document: Document) -> Iterator[str]:
    runs = document["runs"]
    yield text("h1", f"Load on {document['model']}")
    yield text("p", f"{document['url']}, {document.get('started_at', '')}", "quiet")
    yield _verdict(runs)
    yield text("h2", "Figures")
    yield throughput_table(document)
    yield times_table(document)
    yield checks_table(document)
    if len(runs) > 1:
        yield text("h2", "As the load rises")
        yield text("p", "Dotted lines are limits.", "quiet")
        yield _plots([goodput_figure(document), *percentile_figures(document)])
    yield text("h2", "Distributions")
    yield _plots(cdf_figures(document))
    yield text("h2", "In the course of time")
    yield from (_timeline(run, is_open=number < NUM_OPEN) for number, run in enumerate(runs))
    for title, content in (("Failures", errors_table(document)), ("Faults", faults_table(document))):
        if content:
            yield text("h2", title) + content
    yield text("h2", "Settings and machine")
    yield named_values_table("setting", document["settings"])
    yield named_values_table("machine", document["machine"])


def _verdict(runs: list[Run]) -> str:
    reasons = [f"{run['name']}: {reason}" for run in runs if not run["valid"] for reason in run["reasons"]]
    num_valid = sum(run["valid"] for run in runs)
    if num_valid == len(runs):
        return element("div", text("strong", "Valid.") + " The client kept to its schedule.", "verdict")
    lines = text("strong", f"Not valid: {len(runs) - num_valid} of {len(runs)} runs.") + "".join(
        text("p", reason) for reason in reasons
    )
    return element("div", lines, "verdict bad")


def _plots(figures: list[object]) -> str:
    return element("div", "".join(map(plot, figures)), "plots")


def _timeline(run: Run, *, is_open: bool) -> str:
    step = points_drawn(len(run["series"]["sent_s"]))
    note = text("p", f"One request of {step} is drawn as a point; lines are of all.", "quiet") if step > 1 else ""
    return (
        f"<details{' open' if is_open else ''}>{text('summary', run['name'])}{note}"
        f"{plot(timeline_figure(run), is_tall=True)}</details>"
    )
