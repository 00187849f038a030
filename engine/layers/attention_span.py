"""How the tokens of a step attend: prompt chunks sequence by sequence, single tokens of many sequences together.

A span covers adjacent tokens of the step's flat batch. It is built once per step and applied in every layer.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everyone knows it by

from engine.kernels.native import NativeKernels
from engine.layers.paged_kv import PagedKv


class AttentionSpan(Protocol):
    """Tokens `first` (included) to `last` (excluded) of the batch."""

    first: int
    last: int

    def attend(self, layer: int, queries: Tensor, kv: Tensor, paged_kv: PagedKv) -> Tensor:
        """Attention of the span's tokens, whose KV is in the pool already.

        Args:
            layer: which layer's KV to read.
            queries: `[num_tokens, kv_heads, group, head_dim]`; query heads grouped by the KV head they share.
            kv: `[num_tokens, 2, kv_heads, head_dim]`, the span's own keys and values.
            paged_kv: the pool.

        Returns:
            `[num_tokens, kv_heads, group, head_dim]`.
        """
        ...


class ChunkSpan:
    """Several tokens of one sequence, from position `start`: causal attention with an offset.

    Args:
        first: the span's first token in the batch.
        num_tokens: its tokens.
        start: position of the first token in its sequence.
        block_ids: the blocks of positions 0 to `start + num_tokens`.
        paged_kv: the pool.
    """

    def __init__(
        self, first: int, num_tokens: int, start: int, block_ids: npt.NDArray[np.int64], paged_kv: PagedKv
    ) -> None:
        self.first, self.last = first, first + num_tokens
        self._end = start + num_tokens
        self._row_ids: Tensor | None = None
        self._mask: Tensor | None = None
        if start:
            self._row_ids = paged_kv.row_ids(block_ids[None])
            #        0 ..... start ........ end
            # keys   [ visible )[ triangle  )     per query: those up to its own position
            positions = torch.arange(self._end, device=paged_kv.device)
            self._mask = _hide(positions > positions[start:, None], paged_kv.dtype)  # [num_tokens, end]

    def attend(self, layer: int, queries: Tensor, kv: Tensor, paged_kv: PagedKv) -> Tensor:
        """See `AttentionSpan`. A whole prompt reads no block: its KV is all in `kv`."""
        if self._row_ids is None:
            keys, values = kv.permute(1, 2, 0, 3)  # each [kv_heads, num_tokens, head_dim]
        else:
            keys, values = paged_kv.gather(layer, self._row_ids, 1)[:, :, 0, : self._end]
        # KV heads take the place of the batch, and their query heads see one KV head without copies of it.
        shape = (-1, queries.shape[2], -1, -1)
        out = F.scaled_dot_product_attention(
            queries.permute(1, 2, 0, 3),
            keys[:, None].expand(shape),
            values[:, None].expand(shape),
            attn_mask=self._mask,
            is_causal=self._mask is None,
        )  # [kv_heads, group, num_tokens, head_dim]
        return out.permute(2, 0, 1, 3)


class SingleTokenSpan:
    """One token of each of several sequences, over KV padded to the longest of them.

    Args:
        first: the span's first token in the batch.
        lengths: tokens of each sequence up to and including this one.
        block_tables: `[num_sequences, num_blocks]`, just enough blocks for the longest; the shorter are padded
            with any block of finite values.
        paged_kv: the pool.
    """

    def __init__(
        self, first: int, lengths: npt.NDArray[np.int64], block_tables: npt.NDArray[np.int64], paged_kv: PagedKv
    ) -> None:
        self.first, self.last = first, first + len(lengths)
        self._longest = int(lengths.max())
        self._row_ids = paged_kv.row_ids(block_tables)
        self._mask: Tensor | None = None
        if lengths.min() < self._longest:
            hidden = torch.from_numpy(np.arange(self._longest) >= lengths[:, None]).to(paged_kv.device)
            self._mask = _hide(hidden, paged_kv.dtype)[:, None, None]  # [num_sequences, 1, 1, longest]

    def attend(self, layer: int, queries: Tensor, kv: Tensor, paged_kv: PagedKv) -> Tensor:  # noqa: ARG002 - `kv` is in the blocks
        """See `AttentionSpan`. Query heads of one KV head take the place of query tokens."""
        gathered = paged_kv.gather(layer, self._row_ids, self.last - self.first)[:, :, :, : self._longest]
        keys, values = gathered.transpose(1, 2)  # each [num_sequences, kv_heads, longest, head_dim]
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=self._mask)


class NativeChunkSpan:
    """As `ChunkSpan`, with blocks read where they are. Arguments alike."""

    def __init__(
        self, first: int, num_tokens: int, start: int, block_ids: npt.NDArray[np.int64], kernels: NativeKernels
    ) -> None:
        self.first, self.last = first, first + num_tokens
        self._start = start
        self._table = torch.from_numpy(block_ids)
        self._kernels = kernels

    def attend(self, layer: int, queries: Tensor, kv: Tensor, paged_kv: PagedKv) -> Tensor:  # noqa: ARG002 - `kv` is in the blocks
        """See `AttentionSpan`."""
        return self._kernels.attend_chunk(queries, layer, paged_kv, start=self._start, table=self._table)


class NativeTokensSpan:
    """One token of each of several sequences of any lengths, with blocks read where they are.

    Args:
        first: the span's first token in the batch.
        lengths: tokens of each sequence up to and including this one.
        tables: the sequences' block tables, one after another.
        table_begins: where each begins in `tables`.
        kernels: compute it.
    """

    def __init__(
        self,
        first: int,
        lengths: npt.NDArray[np.int64],
        tables: npt.NDArray[np.int64],
        table_begins: npt.NDArray[np.int64],
        kernels: NativeKernels,
    ) -> None:
        self.first, self.last = first, first + len(lengths)
        self._lengths = torch.from_numpy(lengths)
        self._tables = torch.from_numpy(tables)
        self._table_begins = torch.from_numpy(table_begins)
        self._kernels = kernels

    def attend(self, layer: int, queries: Tensor, kv: Tensor, paged_kv: PagedKv) -> Tensor:  # noqa: ARG002 - `kv` is in the blocks
        """See `AttentionSpan`."""
        return self._kernels.attend_tokens(
            queries,
            layer,
            paged_kv,
            tables=self._tables,
            table_begins=self._table_begins,
            lengths=self._lengths,
        )


def _hide(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    """What to add to attention scores: minus infinity where `hidden`, else nothing."""
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, float("-inf"))
