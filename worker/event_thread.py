"""An asyncio event loop on a thread of its own, and calls into it from other threads."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

STOP_TIMEOUT_S = 5.0

T = TypeVar("T")


class EventThread:
    """Runs from construction until `stop`.

    Attributes:
        loop: the event loop.
    """

    def __init__(self, name: str) -> None:
        self.loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Has the loop run a coroutine; waits for its result and raises what it raises. Not from the loop itself."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def stop(self) -> None:
        """Ends the thread; tasks that still run are abandoned."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(STOP_TIMEOUT_S)
