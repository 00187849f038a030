"""Coroutines that run beside each other on one event loop, until they end or are given up together."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class TaskSet:
    """Keeps a reference to each task until it ends, as asyncio asks for.

    Args:
        event_loop: where all of them run.
    """

    def __init__(self, event_loop: asyncio.AbstractEventLoop) -> None:
        self._event_loop = event_loop
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Has the event loop run a coroutine soon. From any thread."""
        self._event_loop.call_soon_threadsafe(self.start, coroutine)

    def start(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """As `spawn`, from the event loop itself."""
        task = self._event_loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Cancels all that have not ended, and waits for their end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
