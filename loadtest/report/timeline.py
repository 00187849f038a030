"""What happened in the course of one run, second by second, with the faults as they came."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from loadtest.report.curves import COLOURS, MARGIN, line
from loadtest.report.document import Run

MAX_POINTS = 20_000  # that a phone still draws
MAX_SPANS = 600  # of a timeline: more are narrower than a pixel or two

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Course:
    """A run's requests as arrays, and the spans of time in which they are counted.

    Attributes:
        sent_s: of each request.
        ttft_ms: of each request, NaN where it has none.
        ended_s: of each answered request.
        failed_s: when failed ones were sent.
        tokens_per_s: of each second.
        span_s: seconds that are counted together.
        num_spans: of those, so that all that is known is in one.
    """

    sent_s: Numbers
    ttft_ms: Numbers
    ended_s: Numbers
    failed_s: Numbers
    tokens_per_s: Numbers
    span_s: int
    num_spans: int

    @property
    def middles_s(self) -> Numbers:
        """Where each span is drawn."""
        return (np.arange(self.num_spans, dtype=np.float64) + 0.5) * self.span_s

    def rate(self, times_s: Numbers) -> Numbers:
        """How many of these times there are in each span, per second."""
        rates: Numbers = np.bincount(self._spans(times_s), minlength=self.num_spans) / self.span_s
        return rates

    def median_ttft_ms(self) -> Numbers:
        """Of the requests that were sent in each span; NaN where there are none."""
        has_ttft = ~np.isnan(self.ttft_ms)
        spans, times = self._spans(self.sent_s[has_ttft]), self.ttft_ms[has_ttft]
        medians = np.full(self.num_spans, np.nan)
        for span in np.unique(spans):
            medians[span] = np.median(times[spans == span])
        return medians

    def tokens(self) -> Numbers:
        """Tokens per second in each span."""
        padded = np.zeros(self.num_spans * self.span_s)
        padded[: len(self.tokens_per_s)] = self.tokens_per_s
        means: Numbers = padded.reshape(self.num_spans, self.span_s).mean(axis=1)
        return means

    def _spans(self, times_s: Numbers) -> npt.NDArray[np.int64]:
        return (times_s // self.span_s).astype(np.int64)


def course_of(run: Run) -> Course:
    """The arrays of a run's series."""
    series = run["series"]
    sent_s, ttft_ms, e2e_ms = (np.array(series[name], dtype=float) for name in ("sent_s", "ttft_ms", "e2e_ms"))
    is_failed = np.array([error is not None for error in series["error"]], dtype=bool)
    ended_s = (sent_s + e2e_ms / 1e3)[~np.isnan(e2e_ms)]
    last_s = np.concatenate([sent_s, ended_s]).max(initial=0.0)
    num_seconds = max(math.floor(last_s) + 1, len(series["tokens_per_s"]))
    span_s = math.ceil(num_seconds / MAX_SPANS)
    return Course(
        sent_s=sent_s,
        ttft_ms=ttft_ms,
        ended_s=ended_s,
        failed_s=sent_s[is_failed],
        tokens_per_s=np.array(series["tokens_per_s"], dtype=float),
        span_s=span_s,
        num_spans=math.ceil(num_seconds / span_s),
    )


def points_drawn(num_requests: int) -> int:
    """One request of how many is drawn as a point; lines are always of all."""
    return math.ceil(num_requests / MAX_POINTS) or 1


def timeline_figure(run: Run) -> go.Figure:
    """TTFT, requests and tokens of a run over its time, and the faults for which there was time."""
    course = course_of(run)
    per = f"{course.span_s} s" if course.span_s > 1 else "second"
    titles = (f"TTFT, and its median by {per}", "requests/s", "tokens/s")
    figure = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.07, subplot_titles=titles)
    step = points_drawn(len(course.sent_s))
    points: dict[str, Any] = {"mode": "markers", "marker": {"size": 4, "color": COLOURS[0], "opacity": 0.4}}
    _add(figure, 1, course.sent_s[::step], course.ttft_ms[::step], name="TTFT", **points)
    x = course.middles_s
    _add(figure, 1, x, course.median_ttft_ms(), name="median", mode="lines", connectgaps=True, line=line(4))
    _add(figure, 2, x, course.rate(course.sent_s), name="sent", mode="lines", line=line(5))
    _add(figure, 2, x, course.rate(course.ended_s), name="answered", mode="lines", line=line(2))
    _add(figure, 2, x, course.rate(course.failed_s), name="failed, by when sent", mode="lines", line=line(1))
    _add(figure, 3, x, course.tokens(), name="tokens", mode="lines", line=line(0))
    for fault in run["faults"]:
        if fault["at_s"] <= run["duration_s"]:
            _mark_fault(figure, fault)
    legend = {"orientation": "h", "y": -0.09, "yanchor": "top"}
    figure.update_layout(template="none", margin={**MARGIN, "b": 80}, legend=legend)
    figure.update_xaxes(title_text="seconds since the run began", row=3, col=1)
    figure.update_yaxes(title_text="ms", row=1, col=1)
    figure.update_yaxes(rangemode="tozero")
    return figure


def _mark_fault(figure: go.Figure, fault: Mapping[str, Any]) -> None:
    """A line through all three plots, with its name at the top."""
    label = fault["what"] + (" (failed)" if fault["error"] else "")
    figure.add_vline(fault["at_s"], line={"dash": "dash", "color": COLOURS[3]}, row="all", col="all")
    figure.add_annotation(
        x=fault["at_s"],
        y=1,
        yref="y domain",
        text=escape(label),
        showarrow=False,
        textangle=-90,
        xanchor="right",
        yanchor="top",
        row=1,
        col=1,
    )


def _add(figure: go.Figure, row: int, x: Numbers, y: Numbers, **look: Any) -> None:  # noqa: ANN401 - plotly's own
    """Numbers as JSON has them: rounded, and nothing where there is none."""
    values = [None if np.isnan(value) else round(value, 3) for value in y.tolist()]
    figure.add_trace(go.Scatter(x=np.round(x, 3).tolist(), y=values, **look), row=row, col=1)
