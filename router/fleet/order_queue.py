"""Orders on their way to one worker. Bounded: where a worker takes them too slowly, the link to it has to end."""

import asyncio

from baton.v1 import worker_pb2

MAX_QUEUED_ORDERS = 16_384  # four for each request that one worker queues at most; further behind it never catches up


class OrderQueue:
    """First in, first out.

    Attributes:
        is_overrun: whether an order was dropped, after which the others are worth nothing.
    """

    def __init__(self) -> None:
        self._orders: asyncio.Queue[worker_pb2.AttachRequest | None] = asyncio.Queue(MAX_QUEUED_ORDERS)
        self.is_overrun = False

    def put_nowait(self, order: worker_pb2.AttachRequest | None) -> None:
        """Queues an order, unless there are too many. None ends the stream of them, whatever is queued."""
        if self._orders.full():
            self.is_overrun = True
            if order is not None:
                return
            self._orders.get_nowait()
        self._orders.put_nowait(order)

    async def get(self) -> worker_pb2.AttachRequest | None:
        """Waits for the next order; None when there are no more to come."""
        return await self._orders.get()
