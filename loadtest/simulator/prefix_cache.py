"""Beginnings of prompts that a simulated worker still has, in room that nobody uses, the latest used longest."""

from collections import OrderedDict
from collections.abc import Sequence


class PrefixCache:
    """Blocks by id, least recently used first.

    Args:
        block_tokens: tokens per block.
    """

    def __init__(self, block_tokens: int) -> None:
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
        for block_id in reversed(block_ids):
            self._blocks[block_id] = None
            self._blocks.move_to_end(block_id)
        self.shrink(room_tokens)

    def shrink(self, room_tokens: int) -> None:
        """Evicts what does not fit into a room."""
        while self._blocks and len(self._blocks) * self._block_tokens > room_tokens:
            self._blocks.popitem(last=False)
