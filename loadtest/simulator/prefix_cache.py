"""Beginnings of prompts that a simulated worker still has, in room that nobody uses, the latest used longest."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

KvNews = Callable[[Sequence[int], Sequence[int]], None]
"""Hears which blocks a cache has stored, and then which it has dropped."""


class PrefixCache:
    """Blocks by id, least recently used first.

    Args:
        block_tokens: tokens per block.

    Attributes:
        news: hears what it stores and drops; None when nobody does.
    """

    def __init__(self, block_tokens: int) -> None:
        self.news: KvNews | None = None
        self._block_tokens = block_tokens
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._blocks)

    def num_tokens(self, block_ids: Sequence[int], prompt_tokens: int) -> int:
        """Leading tokens of a prompt that are here; never all of them, for the last one is always computed."""
        depth = next((i for i, block_id in enumerate(block_ids) if block_id not in self._blocks), len(block_ids))
        whole = (prompt_tokens - 1) // self._block_tokens
        return min(depth, whole) * self._block_tokens

    def keep(self, block_ids: Sequence[int], room_tokens: int) -> None:
        """Has a prompt's blocks, as far as they fit into the room that is left; its end is evicted first."""
        if not block_ids:
            self.shrink(room_tokens)
            return
        stored = [block_id for block_id in block_ids if block_id not in self._blocks]
        for block_id in reversed(block_ids):
            self._blocks[block_id] = None
            self._blocks.move_to_end(block_id)
        self._tell(stored, self._evicted(room_tokens))

    def shrink(self, room_tokens: int) -> None:
        """Evicts what does not fit into a room."""
        if self._blocks:
            self._tell((), self._evicted(room_tokens))

    def _evicted(self, room_tokens: int) -> list[int]:
        num_over = len(self._blocks) - max(0, room_tokens) // self._block_tokens
        return [self._blocks.popitem(last=False)[0] for _ in range(num_over)]

    def _tell(self, stored: Sequence[int], dropped: Sequence[int]) -> None:
        if self.news is not None and (stored or dropped):
            self.news(stored, dropped)
