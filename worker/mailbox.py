"""How other threads reach the worker's loop: they post calls, the loop makes them."""

import queue
from collections.abc import Callable

Call = Callable[[], None]


class Mailbox:
    """A queue of calls with one receiver.

    It needs no bound of its own: every call belongs to an assignment, and `AttachService` bounds those.
    """

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()

    def post(self, call: Call) -> None:
        """Has the loop make a call, after all posted before it. From any thread."""
        self._calls.put(call)

    def receive(self, timeout_s: float) -> list[Call]:
        """All calls posted; waits up to `timeout_s` for the first one. From the loop only."""
        calls: list[Call] = []
        try:
            calls.append(self._calls.get(timeout=timeout_s) if timeout_s > 0 else self._calls.get_nowait())
            while True:
                calls.append(self._calls.get_nowait())
        except queue.Empty:
            return calls
