import asyncio
from unittest.mock import Mock

import pytest

from router.dispatch.movements import Movements
from router.roles.autopilot import Autopilot
from router.roles.orders import RoleOrders
from router.roles.rounds import DECISION_S, ROUND_S, keeping_roles
from tests.router.dispatch.loop_time import LoopTime, settle


@pytest.fixture
def orders() -> Mock:
    return Mock(spec=RoleOrders)


@pytest.fixture
def autopilot() -> Mock:
    return Mock(spec=Autopilot)


async def pass_rounds(number: int, time: LoopTime) -> None:
    for _ in range(number):
        await time.advance(ROUND_S)


async def test_what_had_to_stay_is_looked_after_more_often_than_the_controller_looks(
    orders: Mock, autopilot: Mock
) -> None:
    time = LoopTime(asyncio.get_running_loop())
    movements = Mock(spec=Movements)
    async with keeping_roles(movements, orders, autopilot):
        await settle()
        await pass_rounds(round(3 * DECISION_S / ROUND_S), time)
        autopilot.resign.assert_not_awaited()
    assert (orders.tick.call_count, movements.retry.call_count, autopilot.tick.await_count) == (12, 12, 3)
    autopilot.resign.assert_awaited_once()
    await pass_rounds(4, time)
    assert orders.tick.call_count == 12


async def test_controller_that_waits_for_other_routers_holds_nothing_up(orders: Mock, autopilot: Mock) -> None:
    time = LoopTime(asyncio.get_running_loop())
    autopilot.tick.side_effect = asyncio.Event().wait
    async with keeping_roles(Mock(spec=Movements), orders, autopilot):
        await settle()
        await pass_rounds(20, time)
        assert autopilot.tick.await_count == 1
        assert orders.tick.call_count == 20


async def test_round_that_fails_is_logged_and_followed_by_the_next(
    orders: Mock, autopilot: Mock, caplog: pytest.LogCaptureFixture
) -> None:
    time = LoopTime(asyncio.get_running_loop())
    orders.tick.side_effect = [ValueError("broken"), None]
    async with keeping_roles(Mock(spec=Movements), orders, autopilot):
        await settle()
        await pass_rounds(2, time)
    assert orders.tick.call_count == 2
    assert [record.exc_text for record in caplog.records if "broken" in (record.exc_text or "")]
