"""Writing to and gathering from a pool of KV blocks. Which blocks are whose is not known here."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class PagedKv:
    """Views of a pool tensor, made once; nothing here is proportional to the pool's size.

    A *row* is one head's keys or values of one block: `block_tokens * head_dim` adjacent elements.

        row = ((block * num_layers + layer) * 2 + key_or_value) * kv_heads + head

    Args:
        pool: `[num_blocks, num_layers, 2, kv_heads, block_tokens, head_dim]`, contiguous.

    Attributes:
        kv_heads, block_tokens, head_dim: as in `engine.kv.layout.KvLayout`.
        device, dtype: the pool's.
    """

    def __init__(self, pool: Tensor) -> None:
        _, self._num_layers, _, self.kv_heads, self.block_tokens, self.head_dim = pool.shape
        self.device = pool.device
        self.dtype = pool.dtype
        self._layers = pool.unbind(1)  # each [num_blocks, 2, kv_heads, block_tokens, head_dim]
        self._rows = pool.view(-1, self.block_tokens * self.head_dim)

    def write(self, layer: int, block_ids: Tensor, offsets: Tensor, kv: Tensor) -> None:
        """Stores `kv`, `[num_tokens, 2, kv_heads, head_dim]`, of token i at `offsets[i]` in block `block_ids[i]`."""
        self._layers[layer][block_ids, :, :, offsets] = kv

    def addressing(self, layer: int) -> tuple[int, int, int, int, int]:
        """Where a layer's keys and values are, for code that takes addresses.

        Returns:
            The address of the layer's part of block 0, how many elements behind it that of block 1 is, block_tokens,
            kv_heads and head_dim.
        """
        return (
            self._layers[layer].data_ptr(),
            self._layers[layer].stride(0),
            self.block_tokens,
            self.kv_heads,
            self.head_dim,
        )

    def row_ids(self, block_tables: npt.NDArray[np.int64]) -> Tensor:
        """The rows of `[num_sequences, num_blocks]` block ids in layer 0, in the order that `gather` returns them."""
        block, key_or_value = block_tables * self._num_layers * 2, np.arange(2)[:, None, None, None]
        rows = (block + key_or_value) * self.kv_heads + np.arange(self.kv_heads)[:, None, None]
        return torch.from_numpy(rows.reshape(-1)).to(self.device)  # [2 * kv_heads * num_sequences * num_blocks]

    def gather(self, layer: int, row_ids: Tensor, num_sequences: int) -> Tensor:
        """Copies the rows of one layer -> `[2, kv_heads, num_sequences, num_blocks * block_tokens, head_dim]`."""
        rows = self._rows.index_select(0, row_ids + layer * 2 * self.kv_heads)
        return rows.view(2, self.kv_heads, num_sequences, -1, self.head_dim)
