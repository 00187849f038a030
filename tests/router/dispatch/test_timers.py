import asyncio

import pytest_asyncio

from router.dispatch.timers import Purpose, RequestTimers
from tests.router.dispatch.loop_time import LoopTime


@pytest_asyncio.fixture
async def time() -> LoopTime:
    return LoopTime(asyncio.get_running_loop())


async def test_timer_rings_once_and_may_be_started_again(time: LoopTime) -> None:
    timers, rung = RequestTimers(), []
    for start_s in (0, 10):
        timers.start(Purpose.RETRY, 5.0, lambda start_s=start_s: rung.append(start_s))
        await time.advance(4.9)
        assert timers.running() == {Purpose.RETRY}
        await time.advance(5.1)
        assert timers.running() == frozenset()
    assert rung == [0, 10]


async def test_running_timer_is_not_started_anew(time: LoopTime) -> None:
    timers, rung = RequestTimers(), []
    timers.start(Purpose.MISSING_ROLE, 5.0, lambda: rung.append("first"))
    await time.advance(3.0)
    timers.start(Purpose.MISSING_ROLE, 5.0, lambda: rung.append("second"))
    await time.advance(2.5)
    assert rung == ["first"]
    await time.advance(10.0)
    assert rung == ["first"]


async def test_stopped_timer_does_not_ring(time: LoopTime) -> None:
    timers, rung = RequestTimers(), []
    for purpose in Purpose:
        timers.start(purpose, 5.0, lambda purpose=purpose: rung.append(purpose))
    timers.stop(Purpose.DEADLINE, Purpose.RETRY)
    timers.stop(Purpose.DEADLINE)
    await time.advance(10.0)
    assert rung == [Purpose.MISSING_ROLE]


async def test_timer_may_start_itself_again_when_it_rings(time: LoopTime) -> None:
    timers, rung = RequestTimers(), []

    def again() -> None:
        rung.append(1)
        timers.start(Purpose.RETRY, 5.0, again)

    timers.start(Purpose.RETRY, 5.0, again)
    for _ in range(3):
        await time.advance(5.1)
    assert len(rung) == 3
    timers.stop(*Purpose)
