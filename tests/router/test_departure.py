"""When a router goes, and how long its requests have."""

import asyncio

import pytest

from core.errors import InvalidRequestError
from router.departure import TRANSITIONS, RouterDeparture, RouterEvent, RouterPhase
from tests.router.fleet.scripted_worker import WAIT_S


async def test_router_leaves_as_soon_as_no_request_is_left() -> None:
    departure = RouterDeparture(WAIT_S)
    counts = iter([2, 1, 0])
    assert not departure.is_ordered
    departure.order()
    assert departure.phase is RouterPhase.DRAINING
    await asyncio.wait_for(departure.drain(lambda: next(counts)), WAIT_S)
    assert next(counts, None) is None
    assert departure.phase is RouterPhase.STOPPED


async def test_whoever_waits_for_the_order_hears_it() -> None:
    departure = RouterDeparture(WAIT_S)
    waiting = asyncio.create_task(departure.wait_ordered())
    await asyncio.sleep(0)
    assert not waiting.done()
    departure.order()
    await asyncio.wait_for(waiting, WAIT_S)


async def test_requests_that_do_not_end_are_waited_for_as_long_as_was_said() -> None:
    departure = RouterDeparture(1000.0)
    departure.order(0.0)
    await asyncio.wait_for(departure.drain(lambda: 1), WAIT_S)
    assert departure.phase is RouterPhase.STOPPED


async def test_second_order_shortens_the_time_under_way_and_never_lengthens_it() -> None:
    departure = RouterDeparture(30.0)
    departure.order(1000.0)
    assert 30.0 < departure.left_s <= 1000.0  # the first order says how long
    departure.order(2000.0)
    assert departure.timeout_s == 1000.0
    draining = asyncio.create_task(departure.drain(lambda: 1))
    await asyncio.sleep(0)
    departure.order(0.0)
    await asyncio.wait_for(draining, WAIT_S)


@pytest.mark.parametrize("timeout_s", [-1.0, float("inf"), float("nan")])
async def test_time_that_is_none_is_refused_and_nothing_is_ordered(timeout_s: float) -> None:
    departure = RouterDeparture(30.0)
    with pytest.raises(InvalidRequestError, match=f"the drain timeout is {timeout_s} s"):
        departure.order(timeout_s)
    assert not departure.is_ordered


@pytest.mark.parametrize("phase", list(RouterPhase))
def test_only_ways_forward(phase: RouterPhase) -> None:
    after = [TRANSITIONS.get((phase, event)) for event in RouterEvent]
    assert len([each for each in after if each is not None]) == (phase is not RouterPhase.STOPPED)
