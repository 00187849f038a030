import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from core.errors import UnavailableError
from core.request import Role
from router.dashboard import feed as feed_module
from router.dashboard.feed import LOOK_S, DashboardFeed
from router.roles.changes import CONTROLLER
from tests.router.dashboard.fakes import DashboardWorld, members
from tests.router.dispatch.loop_time import LoopTime, settle

TICK_S = 1.0


class FeedBench:
    """A feed, and the loop's time in the test's hand."""

    def __init__(self) -> None:
        self.time = LoopTime(asyncio.get_running_loop())
        self.world = DashboardWorld(*members())
        self.feed = DashboardFeed(self.world.source, TICK_S)
        self._viewers: list[asyncio.Task[None]] = []

    async def view(self) -> list[dict[str, Any]]:
        """A viewer who reads everything at once; returns where its states go."""
        got: list[dict[str, Any]] = []

        async def read() -> None:
            async for state in self.feed.states():
                got.append(json.loads(state))  # noqa: PERF401 - each at once, not all at the end

        self._viewers.append(asyncio.create_task(read()))
        await settle()
        return got

    async def leave(self, index: int = 0) -> None:
        viewer = self._viewers.pop(index)
        viewer.cancel()
        await asyncio.gather(viewer, return_exceptions=True)
        await settle()

    async def wait_until_all_ended(self) -> None:
        await asyncio.wait_for(asyncio.gather(*self._viewers), 10)
        self._viewers.clear()

    async def close(self) -> None:
        while self._viewers:
            await self.leave()


@pytest_asyncio.fixture
async def bench() -> AsyncIterator[FeedBench]:
    bench = FeedBench()
    yield bench
    await bench.close()


async def test_viewer_gets_a_state_at_once_and_one_a_tick(bench: FeedBench) -> None:
    got = await bench.view()
    assert len(got) == 1
    await bench.time.advance(TICK_S + LOOK_S)
    assert len(got) == 2


async def test_change_of_a_role_is_told_before_the_tick(bench: FeedBench) -> None:
    got = await bench.view()
    bench.world.flip("worker-0", Role.DECODE, CONTROLLER, "")
    await bench.time.advance(LOOK_S)
    assert [state["workers"][0]["role"] for state in got] == ["prefill", "decode"]


async def test_many_viewers_cost_one_computation_a_tick(bench: FeedBench) -> None:
    viewers = [await bench.view() for _ in range(20)]
    assert bench.world.num_looks == 1
    await bench.time.advance(TICK_S + LOOK_S)
    assert bench.world.num_looks == 2
    assert {len(got) for got in viewers} == {2}


async def test_nothing_is_computed_while_nobody_looks_and_a_new_viewer_sees_no_old_state(bench: FeedBench) -> None:
    await bench.view()
    await bench.leave()
    await bench.time.advance(10 * TICK_S)
    assert bench.world.num_looks == 1
    await bench.world.director.set_auto("me", is_auto=False)
    got = await bench.view()
    assert [state["is_auto"] for state in got] == [False]


async def test_slow_viewer_misses_states_and_gets_the_newest(bench: FeedBench) -> None:
    states = bench.feed.states()
    first = json.loads(await anext(states))
    for _ in range(3):
        bench.world.now_at += 1
        await bench.time.advance(TICK_S + LOOK_S)
    newest = json.loads(await anext(states))
    assert newest["at"] - first["at"] == 3
    await states.aclose()


async def test_close_ends_what_viewers_read(bench: FeedBench) -> None:
    viewers = [await bench.view() for _ in range(3)]
    bench.feed.close()
    await bench.wait_until_all_ended()
    assert {len(got) for got in viewers} == {1}
    assert [state async for state in bench.feed.states()] == []


async def test_too_many_viewers_are_refused(bench: FeedBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "MAX_VIEWERS", 1)
    await bench.view()
    with pytest.raises(UnavailableError, match="1 pages look at the dashboard already"):
        await anext(bench.feed.states())
    await bench.leave()
    assert len(await bench.view()) == 1


async def test_viewer_to_whom_nothing_can_be_shown_is_not_counted(
    bench: FeedBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "MAX_VIEWERS", 1)
    with monkeypatch.context() as patch:
        patch.setattr(bench.world.source, "build", None)
        with pytest.raises(TypeError):
            await anext(bench.feed.states())
    assert len(await bench.view()) == 1


async def test_defect_costs_a_tick_and_is_logged(
    bench: FeedBench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    got = await bench.view()
    build = bench.world.source.build

    def fail() -> None:
        monkeypatch.setattr(bench.world.source, "build", build)
        raise ZeroDivisionError

    monkeypatch.setattr(bench.world.source, "build", fail)
    with caplog.at_level(logging.ERROR):
        await bench.time.advance(TICK_S + LOOK_S)
    assert "could not be built" in caplog.text
    assert len(got) == 1
    await bench.time.advance(TICK_S)
    await bench.time.advance(LOOK_S)
    assert len(got) == 2
