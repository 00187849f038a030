"""What all contestants of a round copy: the same blocks, in the same random order, between pools of one kind."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.kv.pool import lazy_zeros
from kvtransfer.pieces import PIECE_BYTES

BlockIds = npt.NDArray[np.int32]
"""`[num_blocks]`."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """All blocks of one pool, each to be copied to another place in the other.

    Attributes:
        number: of the round; decides the order, and marks the blocks.
        num_blocks: in each pool.
    """

    number: int
    num_blocks: int

    @property
    def source_ids(self) -> BlockIds:
        """Where blocks are taken from, in the order of copying."""
        return self._order(0)

    @property
    def target_ids(self) -> BlockIds:
        """Where they go."""
        return self._order(1)

    def _order(self, side: int) -> BlockIds:
        return np.random.default_rng([self.number, side]).permutation(self.num_blocks).astype(np.int32)


class Pool:
    """Memory as a worker's KV pool has it, touched once, and seen as blocks of one size.

    Attributes:
        memory: `[pool_bytes]` uint8.
        blocks: `[num_blocks, block_bytes]` uint8, a view.
    """

    def __init__(self, memory: Tensor, block_bytes: int) -> None:
        self.memory = memory
        self.blocks = memory.view(-1, block_bytes)

    @property
    def block_bytes(self) -> int:
        """Of each block."""
        return self.blocks.shape[1]

    def mark(self, exchange: Exchange) -> None:
        """Writes number and id into both ends of every block."""
        words = self.blocks.view(torch.int64)
        marks = torch.arange(exchange.num_blocks) + exchange.number * exchange.num_blocks
        words[:, 0] = words[:, -1] = marks

    def num_wrong(self, exchange: Exchange) -> int:
        """Blocks that are not what `mark` and the exchange should have made of them."""
        words = self.blocks.view(torch.int64)[torch.from_numpy(exchange.target_ids)]
        marks = torch.from_numpy(exchange.source_ids) + exchange.number * exchange.num_blocks
        return int(((words[:, 0] != marks) | (words[:, -1] != marks)).sum())


def new_memory(pool_bytes: int) -> Tensor:
    """`[pool_bytes]` uint8, every page of it touched."""
    return lazy_zeros((pool_bytes,), dtype=torch.uint8).fill_(1)


def pieces(ids: BlockIds, block_bytes: int, piece_bytes: int = PIECE_BYTES) -> Iterator[BlockIds]:
    """Consecutive parts of some blocks, of about `piece_bytes` bytes and at least one block."""
    step = max(1, piece_bytes // block_bytes)
    for first in range(0, len(ids), step):
        yield ids[first : first + step]
