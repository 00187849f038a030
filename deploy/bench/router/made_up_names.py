"""Names of KV blocks for workers that have none."""

import os
from collections import deque

from core.blocks import NAME_BYTES, BlockName
from core.kv_events import KvEvents, split_names

NUM_NAMES = 65_536  # that a worker's cache holds before the oldest make room


class MadeUpNames:
    """Names of blocks that come and go as if prompts were cached. No prompt has them: nothing is ever found."""

    def __init__(self) -> None:
        self._names: deque[BlockName] = deque()
        self._next = 0

    def store(self, num_blocks: int) -> KvEvents:
        """The events of so many further blocks."""
        stored = split_names(os.urandom(num_blocks * NAME_BYTES))
        self._names.extend(stored)
        num_over = max(0, len(self._names) - NUM_NAMES)
        events = KvEvents(self._next, stored, tuple(self._names.popleft() for _ in range(num_over)))
        self._next = events.next
        return events
