"""The memory that KV blocks live in: one tensor per worker, one contiguous region per block."""

import contextlib
import math
import mmap
from collections.abc import Iterable, Sequence
from itertools import chain

import torch
from torch import Tensor

from core.blocks import BlockChain, BlockName, root_name
from engine.kv.accounting import BlockAccounting
from engine.kv.host_tier import COPY_BYTES_PER_STEP, HostTier
from engine.kv.layout import KvLayout
from engine.kv.name_log import NameLog

TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class BlockPool:
    """A rank's pool of KV blocks, the books about them, and the host memory that evicted ones go to.

    Rank 0's books are those of the whole group, the other ranks' are not used. Where all ranks compute all tokens,
    a block has the same id on each of them. Where the blocks are partitioned, one partition per rank, ids count
    through:

        id         0 ........ n ........ 2n ........ num_blocks        n = num_blocks / num_partitions
        rank       [ 0        )[ 1       )[ 2        )                 each rank's tensor has n blocks

    Args:
        layout: shape of a block on this rank.
        num_blocks: blocks in the books, a multiple of `num_partitions`.
        device: torch device of the pool.
        fingerprint: names the model and type whose KV this is.
        enable_prefix_caching: whether blocks get names, and so are found and shared.
        num_host_blocks: evicted blocks that host memory holds at most; 0 for none. Only for a rank alone: the books
            of a group know nothing of the other ranks' memory.
        num_partitions: ranks that the blocks are divided over.
        block_parts: ranks that each hold a part of every block.

    Attributes:
        layout: shape of a block, or of this rank's part of it.
        block_bytes: of a whole block, on all ranks.
        tensor: `[num_blocks / num_partitions, num_layers, 2, kv_heads, block_tokens, head_dim]`; allocated here,
            zeroed, freed with the pool. Registered with the transfer plane as one region.
        blocks: who holds which block, and which holds what.
        name_log: which names have come and gone.
        host: where evicted blocks go; None when they go nowhere.
    """

    def __init__(
        self,
        layout: KvLayout,
        num_blocks: int,
        device: str = "cpu",
        *,
        fingerprint: str = "",
        enable_prefix_caching: bool = True,
        num_host_blocks: int = 0,
        num_partitions: int = 1,
        block_parts: int = 1,
    ) -> None:
        self.layout = layout
        self.block_bytes = layout.block_bytes * block_parts
        self.name_log = NameLog(self._has, self._names)
        self.blocks = BlockAccounting(
            num_blocks, self._on_evict, on_publish=self.name_log.touch, num_partitions=num_partitions
        )
        self.tensor = self._zeros(num_blocks // num_partitions, device)
        self.host: HostTier | None = None
        if num_host_blocks:
            memory = self._zeros(num_host_blocks, "cpu", is_pinned=device != "cpu")
            max_copies = max(1, COPY_BYTES_PER_STEP // layout.block_bytes)
            self.host = HostTier(memory, max_copies, on_leave=self.name_log.touch)
        self._fingerprint = fingerprint
        self._is_caching = enable_prefix_caching

    @property
    def num_blocks(self) -> int:
        """Blocks in the books."""
        return self.blocks.num_blocks

    def chain(self, salt: str) -> BlockChain | None:
        """A chain of names for a new sequence of a tenant; None when blocks get no names."""
        if not self._is_caching:
            return None
        return BlockChain(root_name(self._fingerprint, salt), self.layout.block_tokens)

    def begin_step(self) -> None:
        """Renews what each step may copy from and to the host; once per step."""
        if self.host is not None:
            self.host.begin_step()

    def try_restore(self, name: BlockName, block_id: int) -> bool:
        """Fills a block, which the caller owns, from the host; False when it is not there, or not in this step."""
        return self.host is not None and self.host.try_restore(name, self.tensor[block_id])

    def check(self) -> None:
        """Asserts that all books balance."""
        self.blocks.check()
        if self.host is not None:
            self.host.check()

    def _has(self, name: BlockName) -> bool:
        return self.blocks.has(name) or (self.host is not None and name in self.host)

    def _names(self) -> Iterable[BlockName]:
        return self.blocks.names() if self.host is None else chain(self.blocks.names(), self.host.names())

    def _on_evict(self, evicted: Sequence[tuple[int, BlockName]]) -> None:
        for _, name in evicted:
            self.name_log.touch(name)
        if self.host is not None:
            self.host.save([(self.tensor[block_id], name) for block_id, name in evicted])

    def _zeros(self, num_blocks: int, device: str, *, is_pinned: bool = False) -> Tensor:
        """`[num_blocks, num_layers, 2, kv_heads, block_tokens, head_dim]`."""
        layout, dtype = self.layout, TORCH_DTYPES[self.layout.dtype]
        shape = (num_blocks, layout.num_layers, 2, layout.kv_heads, layout.block_tokens, layout.head_dim)
        if device == "cpu" and not is_pinned:
            return lazy_zeros(shape, dtype=dtype)
        return torch.zeros(shape, dtype=dtype, device=device, pin_memory=is_pinned)


def lazy_zeros(shape: tuple[int, ...], *, dtype: torch.dtype) -> Tensor:
    """As `torch.zeros` on the CPU, but the system zeroes each page when it is first touched.

    A pool of 1 GiB takes 2 s to zero page by page, and most of it is not used for a long time. Huge pages, where the
    system has them, make the first touch 500 times rarer.
    """
    memory = mmap.mmap(-1, math.prod(shape) * dtype.itemsize)
    with contextlib.suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(shape)
