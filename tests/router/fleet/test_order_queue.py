"""Orders that wait for a worker go together, in order, and not too much at once."""

import asyncio

import pytest
import pytest_asyncio
from baton.v1 import worker_pb2

from router import wire
from router.fleet import order_queue
from router.fleet.order_queue import MAX_TOGETHER_BYTES, SPACING_S, OrderQueue
from tests.router.dispatch.loop_time import LoopTime


def cancel(number: int) -> worker_pb2.AttachRequest:
    return wire.cancel_to_proto(f"request.{number}")


def large() -> worker_pb2.AttachRequest:
    return wire.cancel_to_proto("x" * (MAX_TOGETHER_BYTES // 2))


async def together(orders: OrderQueue) -> list[str]:
    """Handoff ids of the next message."""
    order = await orders.get()
    assert order is not None
    return [each.cancel.handoff_id for each in (order, *order.further)]


@pytest_asyncio.fixture
async def time() -> LoopTime:
    return LoopTime(asyncio.get_running_loop())


async def test_orders_that_wait_go_together_in_order() -> None:
    orders = OrderQueue()
    for number in range(3):
        orders.put_nowait(cancel(number))
    assert await together(orders) == ["request.0", "request.1", "request.2"]


async def test_order_is_waited_for() -> None:
    orders = OrderQueue()
    waiting = asyncio.create_task(together(orders))
    await asyncio.sleep(0)
    assert not waiting.done()
    orders.put_nowait(cancel(0))
    assert await waiting == ["request.0"]


async def test_orders_that_follow_a_message_closely_go_together(time: LoopTime) -> None:
    orders = OrderQueue()
    orders.put_nowait(cancel(0))
    assert await together(orders) == ["request.0"]
    orders.put_nowait(cancel(1))
    waiting = asyncio.create_task(together(orders))
    await time.advance(SPACING_S / 2)
    assert not waiting.done()
    orders.put_nowait(cancel(2))
    await time.advance(SPACING_S)
    assert waiting.done()
    assert await waiting == ["request.1", "request.2"]


async def test_order_that_may_wait_goes_with_the_next_one(time: LoopTime) -> None:
    orders = OrderQueue()
    orders.put_nowait(cancel(0), patience_s=1.0)
    waiting = asyncio.create_task(together(orders))
    await time.advance(0.5)
    assert not waiting.done()
    orders.put_nowait(cancel(1))
    assert await waiting == ["request.0", "request.1"]


async def test_order_that_has_waited_goes_alone(time: LoopTime) -> None:
    orders = OrderQueue()
    for number in range(2):
        orders.put_nowait(cancel(number), patience_s=1.0)
        waiting = asyncio.create_task(together(orders))
        await time.advance(0.9)
        assert not waiting.done()
        await time.advance(0.2)
        assert await waiting == [f"request.{number}"]


async def test_large_orders_go_in_several_messages() -> None:
    orders = OrderQueue()
    for order in (cancel(0), large(), large(), cancel(1)):
        orders.put_nowait(order)
    assert [len(await together(orders)) for _ in range(2)] == [2, 2]


async def test_end_comes_behind_what_is_queued() -> None:
    orders = OrderQueue()
    orders.put_nowait(cancel(0))
    orders.end()
    assert await together(orders) == ["request.0"]
    assert await orders.get() is None


async def test_queue_that_is_full_drops_orders_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_queue, "MAX_QUEUED_ORDERS", 2)
    orders = OrderQueue()
    for number in range(2):
        orders.put_nowait(cancel(number))
    assert not orders.is_overrun
    orders.put_nowait(cancel(2))
    assert orders.is_overrun
    assert await together(orders) == ["request.0", "request.1"]
