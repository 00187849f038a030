"""The memory that KV blocks live in: one tensor per worker, one contiguous region per block."""

import contextlib
import math
import mmap

import torch
from torch import Tensor

from engine.kv.accounting import BlockAccounting
from engine.kv.layout import KvLayout

TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class BlockPool:
    """A rank's pool of KV blocks, and the books about them.

    Rank 0's books are those of the whole group, the other ranks' are not used. Where all ranks compute all tokens,
    a block has the same id on each of them. Where the blocks are partitioned, one partition per rank, ids count
    through:

        id         0 ........ n ........ 2n ........ num_blocks        n = num_blocks / num_partitions
        rank       [ 0        )[ 1       )[ 2        )                 each rank's tensor has n blocks

    Args:
        layout: shape of a block on this rank.
        num_blocks: blocks in the books, a multiple of `num_partitions`.
        device: torch device of the tensor.
        num_partitions: ranks that the blocks are divided over.

    Attributes:
        layout: shape of a block.
        tensor: `[num_blocks / num_partitions, num_layers, 2, kv_heads, block_tokens, head_dim]`; allocated here,
            zeroed, freed with the pool. Registered with the transfer plane as one region.
        blocks: who holds which block.
    """

    def __init__(self, layout: KvLayout, num_blocks: int, device: str = "cpu", num_partitions: int = 1) -> None:
        self.layout = layout
        self.blocks = BlockAccounting(num_blocks, num_partitions)
        num_local = self.blocks.blocks_per_partition
        shape = (num_local, layout.num_layers, 2, layout.kv_heads, layout.block_tokens, layout.head_dim)
        allocate = lazy_zeros if device == "cpu" else torch.zeros
        self.tensor: Tensor = allocate(shape, dtype=TORCH_DTYPES[layout.dtype], device=device)

    @property
    def num_blocks(self) -> int:
        """Blocks in the books."""
        return self.blocks.num_blocks


def lazy_zeros(shape: tuple[int, ...], *, dtype: torch.dtype, device: str) -> Tensor:
    """As `torch.zeros` on the CPU, but the system zeroes each page when it is first touched.

    A pool of 1 GiB takes 2 s to zero page by page, and most of it is not used for a long time. Huge pages, where the
    system has them, make the first touch 500 times rarer.
    """
    assert device == "cpu", f"{device} memory is not the system's"
    memory = mmap.mmap(-1, math.prod(shape) * dtype.itemsize)
    with contextlib.suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(shape)
