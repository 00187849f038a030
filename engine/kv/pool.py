"""The memory that KV blocks live in: one tensor per worker, one contiguous region per block."""

import torch

from engine.kv.accounting import BlockAccounting
from engine.kv.layout import KvLayout

TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class BlockPool:
    """A pool of KV blocks and the books about them.

    Attributes:
        layout: shape of a block.
        tensor: `[num_blocks, num_layers, 2, kv_heads, block_tokens, head_dim]`; allocated here, zeroed, freed with
            the pool. Registered with the transfer plane as one region.
        blocks: who holds which block.
    """

    def __init__(self, layout: KvLayout, num_blocks: int, device: str = "cpu") -> None:
        self.layout = layout
        self.tensor = torch.zeros(
            (num_blocks, layout.num_layers, 2, layout.kv_heads, layout.block_tokens, layout.head_dim),
            dtype=TORCH_DTYPES[layout.dtype],
            device=device,
        )
        self.blocks = BlockAccounting(num_blocks)

    @property
    def num_blocks(self) -> int:
        """Blocks in the pool."""
        return self.blocks.num_blocks
