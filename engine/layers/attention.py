"""Grouped-query self-attention of one layer over the paged pool."""

from collections.abc import Iterator

import torch
from torch import Tensor

from engine.batch import StepBatch
from engine.config import ModelConfig
from engine.layers.linear import PackedLinear
from engine.layers.paged_kv import PagedKv
from engine.layers.rope import rotate_
from engine.parallel.axis_part import AxisPart
from engine.weights import TensorOptions, TensorSlot


class Attention:
    """Projections, rotary embedding, KV write and attention; of a rank that holds some heads, their share in the sum.

    Args:
        layer: index of the layer, which selects its part of every block.
        config: the model.
        options: type and device.
    """

    def __init__(self, layer: int, config: ModelConfig, options: TensorOptions) -> None:
        self._kernels = options.kernels
        self._layer = layer
        self._head_dim = config.head_dim
        hidden = AxisPart.whole(config.hidden_size)
        q_part = options.shard.share(config.num_heads, config.head_dim)
        kv_part = options.shard.share(config.num_kv_heads, config.head_dim)
        self._num_heads = q_part.size // config.head_dim
        self._kv_heads = kv_part.size // config.head_dim
        qkv = {"q_proj": q_part, "k_proj": kv_part, "v_proj": kv_part}
        self._qkv = PackedLinear(hidden, qkv, use_bias=config.use_bias, options=options)
        self._out = PackedLinear(q_part, {"o_proj": hidden}, use_bias=config.use_bias, options=options, is_added=True)

    def __call__(
        self, x: Tensor, rotations: Tensor, batch: StepBatch, paged_kv: PagedKv, rows: Tensor | None
    ) -> Tensor:
        """Stores the step's KV of this layer and attends.

        Args:
            x: `[num_tokens, hidden_size]`.
            rotations: of `RotaryEmbedding`.
            batch: where the tokens belong.
            paged_kv: the pool.
            rows: the tokens whose output is wanted, or None for all.

        Returns:
            `[len(rows), hidden_size]`.
        """
        heads = self._qkv(x).view(len(x), -1, self._head_dim)  # [num_tokens, num_heads + 2 * kv_heads, head_dim]
        kv = heads[:, self._num_heads :].view(len(x), 2, self._kv_heads, -1)
        if self._kernels is not None:
            self._kernels.rotate_and_store(
                heads, rotations, self._layer, paged_kv, block_ids=batch.block_ids, offsets=batch.offsets
            )
        else:
            rotate_(heads[:, : self._num_heads + self._kv_heads], rotations)
            paged_kv.write(self._layer, batch.block_ids, batch.offsets, kv)
        queries = heads[:, : self._num_heads].view(len(x), self._kv_heads, -1, self._head_dim)
        attended = [
            span.attend(self._layer, queries[span.first : span.last], kv[span.first : span.last], paged_kv)
            for span in batch.spans
        ]
        joined = attended[0] if len(attended) == 1 else torch.cat(attended)
        heads_out = joined.reshape(len(x), -1)  # [num_tokens, num_heads * head_dim]
        return self._out(heads_out if rows is None else heads_out.index_select(0, rows))

    def slots(self, prefix: str) -> Iterator[TensorSlot]:
        """`{prefix}.q_proj`, `.k_proj`, `.v_proj`, `.o_proj`."""
        yield from self._qkv.slots(prefix)
        yield from self._out.slots(prefix)
