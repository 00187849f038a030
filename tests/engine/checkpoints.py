"""Tiny random ERNIE 4.5 checkpoints, written by transformers. For any test that needs a model but not its quality."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    Ernie4_5_MoeConfig,
    Ernie4_5_MoeForCausalLM,
    Ernie4_5Config,
    Ernie4_5ForCausalLM,
    PreTrainedModel,
)

TINY: dict[str, Any] = {
    "vocab_size": 160,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,  # ten times the usual, so that logits differ clearly and greedy has no near-ties
}
TINY_MOE: dict[str, Any] = {
    "moe_num_experts": 8,
    "moe_k": 2,
    "moe_num_shared_experts": 1,
    "moe_intermediate_size": 32,
    "moe_layer_start_index": 1,
}
TINY_DENSE: dict[str, Any] = {"head_dim": 16}
# Probabilities of eight experts are around 1/8, so a bias of this size changes which are chosen.
CORRECTION_BIAS_STD = 0.2
BIAS_STD = 0.1


def write_tiny_moe(path: Path, seed: int = 0, *, dtype: torch.dtype = torch.float32, **overrides: object) -> Path:
    """Writes a mixture-of-experts checkpoint to `path` and returns it; `overrides` are config fields."""
    torch.manual_seed(seed)
    model = Ernie4_5_MoeForCausalLM(Ernie4_5_MoeConfig(**{**TINY, **TINY_MOE, **overrides}))
    return _save(model, path, dtype)


def write_tiny_dense(path: Path, seed: int = 0, *, dtype: torch.dtype = torch.float32, **overrides: object) -> Path:
    """Writes a dense checkpoint to `path` and returns it; `overrides` are config fields."""
    torch.manual_seed(seed)
    model = Ernie4_5ForCausalLM(Ernie4_5Config(**{**TINY, **TINY_DENSE, **overrides}))
    return _save(model, path, dtype)


def _save(model: PreTrainedModel, path: Path, dtype: torch.dtype) -> Path:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("e_score_correction_bias"):
                parameter.normal_(std=CORRECTION_BIAS_STD)
            elif name.endswith("bias"):
                parameter.normal_(std=BIAS_STD)
            elif name.endswith("norm.weight"):
                parameter.uniform_(0.5, 1.5)
    model.to(dtype).save_pretrained(path)
    return path
