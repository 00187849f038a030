"""Parts of the report's page: tables and plots. Everything that comes from a document is escaped here."""

from collections.abc import Iterable, Sequence
from html import escape

import plotly.graph_objects as go

NOTHING = "-"
"""Where there is no number."""


def element(name: str, content: str, class_name: str = "") -> str:
    """An element around HTML."""
    attribute = f' class="{class_name}"' if class_name else ""
    return f"<{name}{attribute}>{content}</{name}>"


def text(name: str, content: object, class_name: str = "") -> str:
    """An element around text."""
    return element(name, escape(str(content)), class_name)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], class_name: str = "") -> str:
    """A table.

    Args:
        head: texts.
        rows: cells, made by `cell`.
        class_name: `words` for one whose cells are sentences.
    """
    heads = "".join(text("th", title) for title in head)
    lines = "".join(element("tr", "".join(row)) for row in rows)
    return element("div", element("table", element("tr", heads) + lines, class_name), "wide")


def cell(content: object, *, is_bad: bool = False) -> str:
    """A cell of a table; a bad one is red."""
    return text("td", content, "bad" if is_bad else "")


def number(value: float | None, digits: int = 3) -> str:
    """A number as people read it: that many significant digits, whole ones in full, a dash for none."""
    if value is None:
        return NOTHING
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def plot(figure: go.Figure, *, is_tall: bool = False) -> str:
    """A figure as data, which the page's script draws. No text in it can end the script element that holds it."""
    json = figure.to_json().replace("<", "\\u003c")
    return (
        f'<div class="plot{" tall" if is_tall else ""}"><div style="height:100%"></div>'
        f'<script type="application/json">{json}</script></div>'
    )
