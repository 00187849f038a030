"""What has to be done about roles again and again, on the event loop."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from router.dispatch.movements import Movements
from router.roles.autopilot import Autopilot
from router.roles.orders import RoleOrders

ROUND_S = 0.25  # how soon a sequence that had to stay is moved when there is room, and how exact deadlines are
DECISION_S = 1.0  # far below the time in which load changes; `router.roles.leadership` counts on it, too

logger = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def keeping_roles(movements: Movements, orders: RoleOrders, autopilot: Autopilot) -> AsyncIterator[None]:
    """While the context lasts, what had to stay is moved when it can be, and the controller looks every second.

    The two do not wait for each other: the controller asks the other routers first, which may take seconds when they
    cannot be reached.
    """

    async def look_after() -> None:
        movements.retry()
        orders.tick()

    tasks = [
        asyncio.create_task(_again(ROUND_S, look_after)),
        asyncio.create_task(_again(DECISION_S, autopilot.tick)),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await autopilot.resign()


async def _again(period_s: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(period_s)
        try:
            await work()
        except Exception:
            logger.exception("a defect in the router: roles are not looked after in this round")
