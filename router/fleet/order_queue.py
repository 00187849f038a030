"""Orders on their way to one worker. Bounded: where a worker takes them too slowly, the link to it has to end."""

import asyncio
from collections import deque

from baton.v1 import worker_pb2

MAX_QUEUED_ORDERS = 16_384  # four for each request that one worker queues at most; further behind it never catches up
MAX_TOGETHER_BYTES = 256 * 1024  # in one message, beyond its first order: reading it holds up the worker's event loop


class OrderQueue:
    """First in, first out.

    Attributes:
        is_overrun: whether an order was dropped, after which the others are worth nothing.
    """

    def __init__(self) -> None:
        self._orders: deque[worker_pb2.AttachRequest] = deque()
        self._news = asyncio.Event()
        self._is_ended = False
        self.is_overrun = False

    def put_nowait(self, order: worker_pb2.AttachRequest) -> None:
        """Queues an order, which is the queue's from now on, unless there are too many."""
        if len(self._orders) >= MAX_QUEUED_ORDERS:
            self.is_overrun = True
        else:
            self._orders.append(order)
            self._news.set()

    def end(self) -> None:
        """There will be no more orders."""
        self._is_ended = True
        self._news.set()

    async def get(self) -> worker_pb2.AttachRequest | None:
        """Waits for the next order, and returns it with those behind it; None when there will be no more."""
        while not self._orders:
            if self._is_ended:
                return None
            self._news.clear()
            await self._news.wait()
        return self._take()

    def _take(self) -> worker_pb2.AttachRequest:
        first, left_bytes = self._orders.popleft(), MAX_TOGETHER_BYTES
        while self._orders and (left_bytes := left_bytes - self._orders[0].ByteSize()) >= 0:
            first.further.append(self._orders.popleft())
        return first
