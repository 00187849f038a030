"""How other threads reach the worker's loop: they post calls, the loop makes them."""

import asyncio
import queue
from collections.abc import Callable
from functools import partial
from typing import TypeVar

Call = Callable[[], None]

T = TypeVar("T")


class Mailbox:
    """A queue of calls with one receiver.

    It has no bound of its own. `AttachService` bounds what routers have assigned; peers make a call or two for each
    handoff, fetch and read that is under way.
    """

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()

    def post(self, call: Call) -> None:
        """Has the loop make a call, after all posted before it. From any thread."""
        self._calls.put(call)

    async def ask(self, call: Callable[[Callable[[T], None]], None]) -> T:
        """Has the loop make a call whose last argument is a reply function, and awaits the reply."""
        event_loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = event_loop.create_future()

        def resolve(answer: T) -> None:
            if not future.done():
                future.set_result(answer)

        def reply(answer: T) -> None:
            event_loop.call_soon_threadsafe(resolve, answer)

        self.post(partial(call, reply))
        return await future

    def receive(self, timeout_s: float) -> list[Call]:
        """All calls posted; waits up to `timeout_s` for the first one. From the loop only."""
        calls: list[Call] = []
        try:
            calls.append(self._calls.get(timeout=timeout_s) if timeout_s > 0 else self._calls.get_nowait())
            while True:
                calls.append(self._calls.get_nowait())
        except queue.Empty:
            return calls
