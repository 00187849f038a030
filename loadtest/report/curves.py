"""Plots over all runs of a load: what becomes of times and goodput as it rises, and how times are distributed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from loadtest.report.document import Document, Run
from loadtest.report.series import NUM_QUANTILES

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")  # told apart by all eyes
DASHES = ("solid", "dash", "dot")
TIMES = {"ttft_ms": "TTFT", "tpot_ms": "TPOT", "itl_ms": "ITL", "e2e_ms": "end to end"}
PERCENTILES = ("p50", "p90", "p99")
LEAST_MS = 0.01  # two tokens in one packet have no gap, which a logarithmic axis cannot show
LIMIT_LINE = {"dash": "dot", "color": "#7f7f7f"}
MARGIN = {"l": 60, "r": 16, "t": 40, "b": 90}


def new_figure(title: str, x_title: str, y_title: str) -> go.Figure:
    """An empty plot in the report's look; its colours are the page's."""
    figure = go.Figure()
    figure.update_layout(
        title={"text": title, "font": {"size": 15}, "x": 0.02},
        xaxis={"title": {"text": x_title}},
        yaxis={"title": {"text": y_title}, "rangemode": "tozero"},
        margin=MARGIN,
        legend={"orientation": "h", "y": -0.25, "yanchor": "top"},
        showlegend=True,
        template="none",
    )
    return figure


def line(number: int, *, width: float = 2.0) -> dict[str, Any]:
    """Look of the number-th of many lines."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "dash": DASHES[number // len(COLOURS) % len(DASHES)],
        "width": width,
    }


def strength(runs: Sequence[Run]) -> tuple[list[Any], str]:
    """How strong the load of each run was, and what of that is."""
    for name, title in (("rate", "requests/s asked for"), ("concurrency", "requests at once")):
        values = [run.get(name) for run in runs]
        if None not in values:
            return values, title
    return [run["name"] for run in runs], "run"


def goodput_figure(document: Document) -> go.Figure:
    """Requests per second that were answered, and those inside the limits, by the strength of the load."""
    runs = document["runs"]
    x, x_title = strength(runs)
    figure = new_figure("Goodput", x_title, "requests/s")
    answered = [run["summary"]["requests_per_s"] for run in runs]
    good = [run["summary"]["goodput"]["requests_per_s"] for run in runs]
    figure.add_scatter(x=x, y=answered, name="answered", mode="lines+markers", line=line(0))
    figure.add_scatter(x=x, y=good, name="inside the limits", mode="lines+markers", line=line(2))
    return figure


def percentile_figures(document: Document) -> list[go.Figure]:
    """One for each kind of time: its percentiles by the strength of the load; dotted is the limit."""
    runs = document["runs"]
    x, x_title = strength(runs)
    figures = []
    for name, title in TIMES.items():
        figure = new_figure(title, x_title, "ms")
        for order, percentile in enumerate(PERCENTILES):
            y = [None if run["summary"][name] is None else run["summary"][name][percentile] for run in runs]
            figure.add_scatter(x=x, y=y, name=percentile, mode="lines+markers", line=line(order))
        if (limit := document["limits"].get(name)) is not None:
            figure.add_hline(limit, line=LIMIT_LINE)
        figures.append(figure)
    return figures


def cdf_figures(document: Document) -> list[go.Figure]:
    """One for each kind of time: the share of answers, or of gaps, that took no longer; dotted is the limit."""
    figures = []
    for name, title in TIMES.items():
        figure = new_figure(title, "ms", "share that took no longer, %")
        figure.update_xaxes(type="log")
        for order, run in enumerate(document["runs"]):
            x, y = _distribution(_of_answered(run["series"], name))
            figure.add_scatter(x=x, y=y, name=run["name"], mode="lines", line=line(order))
        if (limit := document["limits"].get(name)) is not None:
            figure.add_vline(limit, line=LIMIT_LINE)
        figures.append(figure)
    return figures


def _of_answered(series: dict[str, Any], name: str) -> Sequence[float | None]:
    """Times of requests that did not fail, which tables are of, too; gaps are of no others."""
    if name == "itl_ms":
        return list(series[name])
    return [time for time, error in zip(series[name], series["error"], strict=True) if error is None]


def _distribution(times_ms: Sequence[float | None]) -> tuple[list[float], list[float]]:
    """Evenly spaced quantiles of all times: exact where they stand, and few, however many the times are."""
    known = np.array([time for time in times_ms if time is not None])
    if not len(known):
        return [], []
    shares = np.linspace(0, 1, min(len(known), NUM_QUANTILES))
    times = np.maximum(np.quantile(known, shares), LEAST_MS)
    return np.round(times, 4).tolist(), np.round(100 * shares, 4).tolist()
