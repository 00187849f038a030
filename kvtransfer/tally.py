"""Waiting for a number of ends without a thread."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Tally(Generic[T]):
    """Collects what comes; thread-safe.

    Args:
        num_parts: ends to come, at least one.
        on_end: called once, by whoever brings the last end, with all of them in the order they came.
    """

    def __init__(self, num_parts: int, on_end: Callable[[list[T]], None]) -> None:
        assert num_parts > 0, "nothing to wait for"
        self._num_parts = num_parts
        self._ended: list[T] = []
        self._on_end = on_end
        self._lock = threading.Lock()

    def end(self, part: T) -> None:
        """One part has ended."""
        with self._lock:
            self._ended.append(part)
            is_last = len(self._ended) == self._num_parts
        if is_last:
            self._on_end(self._ended)
