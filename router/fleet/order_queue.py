"""Orders on their way to one worker. Bounded: where a worker takes them too slowly, the link to it has to end."""

import asyncio
from collections import deque

from baton.v1 import worker_pb2

MAX_QUEUED_ORDERS = 16_384  # four for each request that one worker queues at most; further behind it never catches up
MAX_TOGETHER_BYTES = 256 * 1024  # in one message, beyond its first order: reading it holds up the worker's event loop
# Between two messages. Each one wakes a thread of gRPC's, which takes longer than to read an order; a worker steps
# every few milliseconds, so what comes a little later is not served later.
SPACING_S = 0.001


class OrderQueue:
    """First in, first out. After a pause an order goes at once; when many come, they go together.

    Attributes:
        is_overrun: whether an order was dropped, after which the others are worth nothing.
    """

    def __init__(self) -> None:
        self._orders: deque[worker_pb2.AttachRequest] = deque()
        self._news = asyncio.Event()  # something is to go now
        self._timer: asyncio.TimerHandle | None = None  # of the first order that may wait
        self._next_s = 0.0  # when the next message may go, on the event loop's time
        self._is_ended = False
        self.is_overrun = False

    def put_nowait(self, order: worker_pb2.AttachRequest, *, patience_s: float = 0.0) -> None:
        """Queues an order, which is the queue's from now on, unless there are too many.

        It may wait `patience_s` seconds for another one that it can go with.
        """
        if len(self._orders) >= MAX_QUEUED_ORDERS:
            self.is_overrun = True
            return
        self._orders.append(order)
        if not patience_s:
            self._news.set()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(patience_s, self._news.set)

    def end(self) -> None:
        """There will be no more orders."""
        self._is_ended = True
        self._news.set()

    async def get(self) -> worker_pb2.AttachRequest | None:
        """Waits for an order that is to go, and returns it with those behind it; None when there will be no more."""
        while True:
            await self._news.wait()
            if self._orders:
                await self._keep_distance()
                return self._take()
            if self._is_ended:
                return None
            self._news.clear()

    async def _keep_distance(self) -> None:
        loop = asyncio.get_running_loop()
        if (left_s := self._next_s - loop.time()) > 0:
            await asyncio.sleep(left_s)
        self._next_s = loop.time() + SPACING_S

    def _take(self) -> worker_pb2.AttachRequest:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        first, left_bytes = self._orders.popleft(), MAX_TOGETHER_BYTES
        while self._orders and (left_bytes := left_bytes - self._orders[0].ByteSize()) >= 0:
            first.further.append(self._orders.popleft())
        if not (self._orders or self._is_ended):
            self._news.clear()
        return first
