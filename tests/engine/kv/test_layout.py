import pytest
import torch

from engine.kv.layout import KvLayout
from engine.kv.pool import BlockPool

LAYOUT = KvLayout(num_layers=3, kv_heads=2, block_tokens=4, head_dim=8, dtype="bfloat16")


def test_sizes_are_in_bytes() -> None:
    assert LAYOUT.bytes_per_token == 3 * 2 * 2 * 8 * 2
    assert LAYOUT.block_bytes == 4 * LAYOUT.bytes_per_token


@pytest.mark.parametrize(("num_tokens", "num_blocks"), [(0, 0), (1, 1), (4, 1), (5, 2)])
def test_blocks_cover_tokens(num_tokens: int, num_blocks: int) -> None:
    assert LAYOUT.blocks_for(num_tokens) == num_blocks


def test_pool_is_one_zeroed_region_of_blocks() -> None:
    pool = BlockPool(LAYOUT, 5)
    assert pool.num_blocks == 5
    assert pool.tensor.shape == (5, 3, 2, 2, 4, 8)
    assert pool.tensor.dtype == torch.bfloat16
    assert pool.tensor.is_contiguous()
    assert pool.tensor[0].numel() * pool.tensor.element_size() == LAYOUT.block_bytes
    assert not pool.tensor.any()
