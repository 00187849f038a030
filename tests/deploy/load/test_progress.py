import asyncio
import io

import pytest
from rich.console import Console

from core.clock import ManualClock
from deploy.load import progress
from deploy.load.progress import progress_of
from loadtest.load.live import LiveView
from loadtest.load.run import RunPlan
from tests.loadtest.load.chunks import answered, record

PLAN = RunPlan("2 requests/s", 2.0, None, None, 60.0)
VIEW = LiveView([answered(0, 0.0, [0.5, 1.0], 2), record(1, 0.0, ended_s=1.0, error="cut_off")], ManualClock(2.0))
LINE = (
    "2 requests/s: 2 s | 2 sent, 1 answered, 1 failed | TTFT p50 500.0 ms p99 500.0 ms | TPOT p50 500.0 ms | "
    "1 events/s | lag p99 0.0 ms"
)


@pytest.mark.parametrize("is_terminal", [True, False])
async def test_run_is_shown_until_it_ends(is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    monkeypatch.setattr(progress, "LIVE_EVERY_S", 0.0)
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=is_terminal, highlight=False, width=200, color_system=None)
    task = asyncio.create_task(progress_of(PLAN, console)(VIEW))
    while LINE not in shown.getvalue():
        assert not task.done()
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
