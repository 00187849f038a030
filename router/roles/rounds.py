"""What has to be done about roles again and again, on the event loop."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from router.dispatch.movements import Movements
from router.roles.autopilot import Autopilot
from router.roles.orders import RoleOrders

ROUND_S = 0.25  # how soon a sequence that had to stay is moved when there is room, and how exact deadlines are
ROUNDS_PER_DECISION = 4

logger = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def keeping_roles(movements: Movements, orders: RoleOrders, autopilot: Autopilot) -> AsyncIterator[None]:
    """While the context lasts, what had to stay is moved when it can be, and the controller looks every second."""
    task = asyncio.create_task(_rounds(movements, orders, autopilot))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await autopilot.resign()


async def _rounds(movements: Movements, orders: RoleOrders, autopilot: Autopilot) -> None:
    number = 0
    while True:
        await asyncio.sleep(ROUND_S)
        number += 1
        try:
            movements.retry()
            orders.tick()
            if number % ROUNDS_PER_DECISION == 0:
                await autopilot.tick()
        except Exception:
            logger.exception("a defect in the router: roles are not looked after in this round")
