"""A run of a load as it goes: one line that changes in a terminal, else a line every few seconds."""

import asyncio

from rich.console import Console
from rich.live import Live
from rich.text import Text

from loadtest.load.distribution import Distribution
from loadtest.load.live import LiveFigures, LiveView
from loadtest.load.run import RunPlan, Watch

LIVE_EVERY_S = 1.0  # a look costs milliseconds, in which nothing is sent
LINE_EVERY_S = 10.0


def progress_of(plan: RunPlan, console: Console) -> Watch:
    """Shows a run on a console."""

    def line(view: LiveView) -> Text:
        return progress_line(plan.name, view.look())

    async def draw(view: LiveView) -> None:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(line(view), refresh=True)
                await asyncio.sleep(LIVE_EVERY_S)

    async def write(view: LiveView) -> None:
        while True:
            await asyncio.sleep(LINE_EVERY_S)
            console.print(line(view), soft_wrap=True)

    return draw if console.is_terminal else write


def progress_line(name: str, figures: LiveFigures) -> Text:
    """Where a run stands; times are of the last seconds."""
    parts = [
        f"{figures.elapsed_s:.0f} s",
        f"{figures.sent} sent, {figures.answered} answered, {figures.failed} failed",
        f"TTFT p50 {_ms(figures.ttft_ms, 'p50')} p99 {_ms(figures.ttft_ms, 'p99')}",
        f"TPOT p50 {_ms(figures.tpot_ms, 'p50')}",
        f"{figures.events_per_s:.0f} events/s",
        f"lag p99 {_ms(figures.lag_ms, 'p99')}",
    ]
    return Text(f"{name}: {' | '.join(parts)}")


def _ms(times: Distribution | None, name: str) -> str:
    return "-" if times is None else f"{getattr(times, name):.1f} ms"
