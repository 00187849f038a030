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
        self._orders: asyncio.Queue[worker_pb2.AttachRequest | None] = asyncio.Queue()  # None ends it
        self.is_overrun = False

    def put_nowait(self, order: worker_pb2.AttachRequest) -> None:
        """Queues an order, unless there are too many."""
        if self._orders.qsize() >= MAX_QUEUED_ORDERS:
            self.is_overrun = True
        else:
            self._orders.put_nowait(order)

    def end(self) -> None:
        """There will be no more orders."""
        self._orders.put_nowait(None)

    async def get(self) -> worker_pb2.AttachRequest | None:
        """Waits for the next order; None when there will be no more."""
        return await self._orders.get()
