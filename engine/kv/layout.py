"""The shape of a KV block, which two workers must agree on before any byte moves."""

from dataclasses import dataclass

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class KvLayout:
    """Shape and type of one KV block: `[num_layers, 2, kv_heads, block_tokens, head_dim]`, contiguous.

    Index 0 of the second axis holds keys (after rotary embedding), index 1 values.

    Attributes:
        num_layers: transformer layers.
        kv_heads: key/value heads held by this rank.
        block_tokens: tokens per block.
        head_dim: elements per head.
        dtype: one of `DTYPE_BYTES`.
    """

    num_layers: int
    kv_heads: int
    block_tokens: int
    head_dim: int
    dtype: str

    @property
    def elements_per_token(self) -> int:
        """Elements of keys and values of one token over all layers."""
        return self.num_layers * 2 * self.kv_heads * self.head_dim

    @property
    def bytes_per_token(self) -> int:
        """Bytes of keys and values of one token over all layers."""
        return self.elements_per_token * DTYPE_BYTES[self.dtype]

    @property
    def block_bytes(self) -> int:
        """Bytes of one block, the unit of transfer."""
        return self.bytes_per_token * self.block_tokens

    def blocks_for(self, num_tokens: int) -> int:
        """Blocks needed to hold `num_tokens` tokens."""
        return -(-num_tokens // self.block_tokens)
