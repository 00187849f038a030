"""Reading a rank's blocks as a peer with blocks of another size or other heads sees them: to send, and to sum up."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import xxhash
from torch import Tensor

from engine.kv.layout import KvLayout
from engine.kv.pool import TORCH_DTYPES
from kvtransfer.geometry import RankGeometry


@dataclass(frozen=True, slots=True)
class BlockPart:
    """Some heads of a run of tokens, as one block of `num_tokens` tokens.

        blocks of the rank    [ block_ids[0]   )[ block_ids[1]   )
                                      [ num_tokens )                   may go past the last one: zeros
                              |------>| first_token

    Attributes:
        block_ids: of the rank's pool, at least one.
        first_token: in the first block.
        num_tokens: how many.
        first_head: of the model's KV heads.
        num_heads: adjacent ones, all of which the rank holds.
    """

    block_ids: Sequence[int]
    first_token: int
    num_tokens: int
    first_head: int
    num_heads: int


def part_of(
    block_ids: Sequence[int], block_tokens: int, first_token: int, num_tokens: int, heads: tuple[int, int]
) -> BlockPart:
    """Tokens `[first_token, first_token + num_tokens)` of a sequence whose blocks are given, as a `BlockPart`.

    Args:
        block_ids: of the sequence, from its token 0 on.
        block_tokens: of each of them.
        first_token: of the part; the blocks reach at least that far.
        num_tokens: of the part.
        heads: the first one and how many.
    """
    first, end = first_token // block_tokens, -(-(first_token + num_tokens) // block_tokens)
    assert first < len(block_ids), f"token {first_token} is past {len(block_ids)} blocks of {block_tokens}"
    return BlockPart(block_ids[first:end], first_token % block_tokens, num_tokens, *heads)


class PoolReader:
    """Reads parts of a rank's blocks.

    Args:
        pool: `[num_blocks, block_bytes]` uint8, the rank's.
        geometry: of the rank.
    """

    def __init__(self, pool: Tensor, geometry: RankGeometry) -> None:
        self._geometry = geometry
        self._blocks = as_blocks(pool, geometry)

    def pack(self, part: BlockPart, layers: slice, out: Tensor) -> None:
        """Copies some layers of a part to the same layers of `out`; what no block covers becomes zeros.

        Args:
            part: of the rank's blocks.
            layers: that are copied.
            out: `[num_layers, 2, num_heads, num_tokens, head_dim]`.
        """
        first_head = part.first_head - self._geometry.first_head
        heads = slice(first_head, first_head + part.num_heads)
        first_token, num_packed = part.first_token, 0
        for block_id in part.block_ids:
            num_tokens = min(self._geometry.layout.block_tokens - first_token, part.num_tokens - num_packed)
            source = self._blocks[block_id, layers, :, heads, first_token : first_token + num_tokens]
            out[layers, :, :, num_packed : num_packed + num_tokens].copy_(source)
            first_token, num_packed = 0, num_packed + num_tokens
        out[layers, :, :, num_packed:].zero_()

    def checksum(self, part: BlockPart) -> int:
        """XXH3 (64 bits) of a part's bytes, in the order `[num_layers, 2, num_heads, num_tokens, head_dim]`."""
        layout = self._geometry.layout
        if part.num_heads == layout.kv_heads and part.num_tokens == layout.block_tokens and part.first_token == 0:
            return _xxh3(self._blocks[part.block_ids[0]])
        out = self._blocks.new_empty(_shape(self._packed(part)))
        self.pack(part, slice(None), out)
        return _xxh3(out)

    def part_bytes(self, part: BlockPart) -> int:
        """Bytes of a part."""
        return self._packed(part).block_bytes

    def _packed(self, part: BlockPart) -> KvLayout:
        """A part as a block of its own."""
        return replace(self._geometry.layout, kv_heads=part.num_heads, block_tokens=part.num_tokens)


def as_blocks(region: Tensor, geometry: RankGeometry) -> Tensor:
    """Bytes as `[num_blocks, num_layers, 2, kv_heads, block_tokens, head_dim]` of the layout's type, a view."""
    layout = geometry.layout
    elements = region.flatten()[: geometry.num_blocks * layout.block_bytes].view(TORCH_DTYPES[layout.dtype])
    return elements.view(geometry.num_blocks, *_shape(layout))


def _shape(layout: KvLayout) -> tuple[int, int, int, int, int]:
    return (layout.num_layers, 2, layout.kv_heads, layout.block_tokens, layout.head_dim)


def _xxh3(block: Tensor) -> int:
    return xxhash.xxh3_64_intdigest(block.cpu().view(torch.uint8).numpy().data)
