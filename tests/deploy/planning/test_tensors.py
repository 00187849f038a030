from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    Ernie4_5_MoeConfig,
    Ernie4_5_MoeForCausalLM,
    Ernie4_5_VLMoeConfig,
    Ernie4_5_VLMoeForConditionalGeneration,
    Ernie4_5Config,
    Ernie4_5ForCausalLM,
)

from core.errors import ConfigError
from deploy.planning.shape import ModelShape, read_shape
from deploy.planning.tensors import Part, count_active_parameters, count_parameters, rank_weights
from engine.model import Ernie45Model
from engine.parallel.topology import ONE_RANK, ShardTopology
from engine.weights import TensorOptions
from tests.deploy.planning.configs import DENSE, MOE, preset, shape_of

VARIANTS: dict[str, dict[str, Any]] = {
    "moe": MOE,
    "moe-untied-with-biases": {**MOE, "tie_word_embeddings": False, "use_bias": True},
    "moe-two-shared-experts": {**MOE, "moe_num_shared_experts": 2, "moe_layer_start_index": 2},
    "moe-no-shared-experts": {**MOE, "moe_num_shared_experts": 0, "moe_layer_interval": 2},
    "dense": DENSE,
    "dense-untied-with-biases": {**DENSE, "tie_word_embeddings": False, "use_bias": True},
}
CLASSES = {
    "ernie4_5_moe": (Ernie4_5_MoeConfig, Ernie4_5_MoeForCausalLM),
    "ernie4_5": (Ernie4_5Config, Ernie4_5ForCausalLM),
    "ernie4_5_vl_moe": (Ernie4_5_VLMoeConfig, Ernie4_5_VLMoeForConditionalGeneration),
}


def parameters_of_transformers(values: dict[str, Any]) -> int:
    """Of the reference model, which gets shapes but no memory."""
    config_class, model_class = CLASSES[values["model_type"]]
    with torch.device("meta"):
        model = model_class(config_class(**{k: v for k, v in values.items() if k != "model_type"}))
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_are_counted_as_transformers_does(tmp_path: Path, variant: str) -> None:
    assert count_parameters(shape_of(tmp_path, VARIANTS[variant])) == parameters_of_transformers(VARIANTS[variant])


def test_vision_language_parameters_are_counted_as_transformers_does(tmp_path: Path) -> None:
    config = Ernie4_5_VLMoeConfig(
        text_config={"num_hidden_layers": 3, "hidden_size": 512, "num_attention_heads": 4, "moe_num_experts": 8},
        vision_config={"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48},
    )
    config.save_pretrained(tmp_path)
    assert count_parameters(read_shape(tmp_path / "config.json")) == parameters_of_transformers(config.to_dict())


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_are_those_the_engine_makes(tmp_path: Path, variant: str) -> None:
    shape = shape_of(tmp_path, VARIANTS[variant])
    slots = Ernie45Model(shape.text, TensorOptions(torch.bfloat16, "meta")).slots()
    assert count_parameters(shape) == sum(slot.destination.numel() for slot in slots)


@pytest.mark.parametrize(
    ("name", "billions", "active_billions"),
    [
        ("ernie-4.5-0.3b", 0.36, 0.36),
        ("ernie-4.5-21b-a3b", 21, 3),
        ("ernie-4.5-300b-a47b", 300, 47),
        ("ernie-4.5-vl-28b-a3b", 28, 3),
        ("ernie-4.5-vl-424b-a47b", 424, 47),
    ],
)
def test_published_models_have_the_parameters_of_their_names(
    name: str, billions: float, active_billions: float
) -> None:
    """Names round down: Hugging Face counts 21.8 and 29.4 billion for two of them."""
    shape = preset(name)
    assert count_parameters(shape) == pytest.approx(billions * 1e9, rel=0.055)
    assert count_active_parameters(shape) == pytest.approx(active_billions * 1e9, rel=0.025, abs=0.4e9)


def by_part(shape: ModelShape, topology: ShardTopology) -> Counter[Part]:
    total: Counter[Part] = Counter()
    for weights in rank_weights(shape, topology):
        total[weights.part] += weights.num_parameters
    return total


REPLICATED = {Part.NORMS, Part.ROUTERS, Part.VISION_TOWER}


@pytest.mark.parametrize("name", ["ernie-4.5-300b-a47b", "ernie-4.5-vl-424b-a47b"])
@pytest.mark.parametrize("topology", [ShardTopology(8), ShardTopology(8, 8)])
def test_ranks_together_hold_every_weight_once_and_norms_and_routers_each(name: str, topology: ShardTopology) -> None:
    shape = preset(name)
    whole, rank = by_part(shape, ONE_RANK), by_part(shape, topology)
    assert whole.keys() == rank.keys()
    for part, num_parameters in whole.items():
        assert rank[part] == (num_parameters if part in REPLICATED else num_parameters // 8)


def test_expert_parallel_ranks_share_experts_only() -> None:
    shape = preset("ernie-4.5-21b-a3b")
    whole, rank = by_part(shape, ONE_RANK), by_part(shape, ShardTopology(1, 4))
    assert rank.pop(Part.ROUTED_EXPERTS) * 4 == whole.pop(Part.ROUTED_EXPERTS)
    assert rank == whole


def test_more_ranks_than_kv_heads_keep_one_each() -> None:
    shape = preset("ernie-4.5-0.3b")  # 16 query heads, 2 KV heads
    hidden, head_dim = 1024, 128
    assert by_part(shape, ShardTopology(8))[Part.ATTENTION] == 18 * 2 * hidden * (16 // 8 + 1) * head_dim


@pytest.mark.parametrize(
    ("name", "tp", "ep", "message"),
    [
        (
            "ernie-4.5-21b-a3b",
            8,
            1,
            "--tensor-parallel-size is 8, which does not divide num_attention_heads \\(20\\)",
        ),
        ("ernie-4.5-21b-a3b", 1, 6, "--expert-parallel-size is 6, which does not divide moe_num_experts \\(64\\)"),
        (
            "ernie-4.5-300b-a47b",
            2,
            4,
            "--expert-parallel-size is 4 beside --tensor-parallel-size 2; give both the same size",
        ),
        ("ernie-4.5-300b-a47b", 0, 1, "--tensor-parallel-size is 0; it must be at least 1"),
        ("ernie-4.5-0.3b", 1, 2, "--expert-parallel-size is 2, but config.json describes a model without experts"),
    ],
)
def test_sizes_that_do_not_divide_are_refused_by_flag_and_value(name: str, tp: int, ep: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rank_weights(preset(name), ShardTopology(tp, ep))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"num_attention_heads": 12, "num_key_value_heads": 2, "head_dim": 16, "moe_intermediate_size": 33},
            "--tensor-parallel-size is 3, which neither divides num_key_value_heads \\(2\\)",
        ),
        (
            {"num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 16},
            "does not divide moe_intermediate_size \\(32\\)",
        ),
        ({"intermediate_size": 95}, "--tensor-parallel-size is 3, which does not divide num_attention_heads \\(4\\)"),
    ],
)
def test_sizes_of_any_model_are_checked(tmp_path: Path, changes: dict[str, int], message: str) -> None:
    values = {**MOE, "moe_num_shared_experts": 0, "vocab_size": 120, **changes}
    with pytest.raises(ConfigError, match=message):
        rank_weights(shape_of(tmp_path, values), ShardTopology(3))
