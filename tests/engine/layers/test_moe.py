from pathlib import Path

import pytest
import torch

from engine.checkpoint import Checkpoint
from engine.config import ModelConfig
from engine.layers.moe import MoeMlp, RoutedExperts
from engine.parallel.placement import ELSEWHERE
from engine.weights import TensorOptions
from tests.engine.checkpoints import write_tiny_moe
from tests.engine.conftest import Served


@pytest.fixture
def experts(moe: Served) -> RoutedExperts:
    config = moe.engine.config
    assert config.moe is not None
    experts = RoutedExperts(config.hidden_size, config.moe, TensorOptions(torch.float32, "cpu"))
    Checkpoint(moe.model_dir).load(experts.slots("model.layers.1.mlp.experts"))
    return experts


@pytest.mark.parametrize("num_tokens", [1, 2, 7, 40, 200])
def test_wide_and_grouped_agree(experts: RoutedExperts, num_tokens: int) -> None:
    generator = torch.Generator().manual_seed(num_tokens)
    x = torch.randn(num_tokens, 64, generator=generator)
    chosen = torch.rand(num_tokens, 8, generator=generator).topk(2).indices
    weights = torch.rand(num_tokens, 2, generator=generator)
    torch.testing.assert_close(experts.wide(x, chosen, weights), experts.grouped(x, chosen, weights))


def test_grouped_skips_experts_that_are_not_hit(experts: RoutedExperts) -> None:
    experts.gate_up[3] = torch.nan
    x = torch.randn(5, 64)
    chosen = torch.tensor([[0, 7]] * 5)
    assert experts.grouped(x, chosen, torch.rand(5, 2)).isfinite().all()


@pytest.mark.parametrize("num_tokens", [3, 40])
def test_experts_of_other_ranks_add_nothing(experts: RoutedExperts, num_tokens: int) -> None:
    generator = torch.Generator().manual_seed(num_tokens)
    x = torch.randn(num_tokens, 64, generator=generator)
    chosen = torch.rand(num_tokens, 8, generator=generator).topk(2).indices
    weights = torch.rand(num_tokens, 2, generator=generator)
    is_here = torch.rand(num_tokens, 2, generator=generator) < 0.5
    expected = experts.grouped(x, chosen, weights * is_here)
    here = chosen.where(is_here, ELSEWHERE)
    torch.testing.assert_close(experts.grouped(x, here, weights), expected)
    torch.testing.assert_close(experts.wide(x, here, weights), expected)


def test_no_tokens_give_no_rows(experts: RoutedExperts) -> None:
    empty = torch.zeros(0, 2)
    assert experts(torch.zeros(0, 64), empty.long(), empty).shape == (0, 64)


def test_wide_is_for_few_tokens_that_hit_most_experts(experts: RoutedExperts) -> None:
    assert [num_tokens for num_tokens in (0, 1, 3, 4, 32, 33, 1000) if experts.is_wide(num_tokens)] == [4, 32]


@pytest.mark.parametrize("num_tokens", [1, 10, 100])
def test_block_matches_transformers(moe: Served, num_tokens: int) -> None:
    ours = MoeMlp(moe.engine.config, TensorOptions(torch.float32, "cpu"))
    Checkpoint(moe.model_dir).load(ours.slots("model.layers.2.mlp"))
    x = torch.randn(num_tokens, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = moe.reference.model.layers[2].mlp(x[None])[0]
    torch.testing.assert_close(ours(x), expected, rtol=1e-4, atol=1e-5)


def test_norm_min_bounds_the_divisor(tmp_path: Path) -> None:
    """A bound above one makes the weights sum to less than one."""
    config = ModelConfig.from_dir(write_tiny_moe(tmp_path, moe_norm_min=4.0))
    block = MoeMlp(config, TensorOptions(torch.float32, "cpu"))
    Checkpoint(tmp_path).load(block.slots("model.layers.1.mlp"))
    _, weights = block._router(torch.randn(6, 64))
    assert (weights.sum(-1) < 0.5).all()
