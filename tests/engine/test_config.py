import json
from pathlib import Path
from typing import Any

import pytest
from transformers import Ernie4_5_MoeConfig, Ernie4_5_MoeForCausalLM

from core.errors import CheckpointError
from engine.config import ModelConfig
from tests.engine.checkpoints import TINY, TINY_DENSE, TINY_MOE

MOE = {"model_type": "ernie4_5_moe", **TINY, **TINY_MOE}
DENSE = {"model_type": "ernie4_5", **TINY, **TINY_DENSE}


def read(model_dir: Path, values: dict[str, Any]) -> ModelConfig:
    (model_dir / "config.json").write_text(json.dumps(values))
    return ModelConfig.from_dir(model_dir)


def test_official_21b_config_is_read(tmp_path: Path) -> None:
    """As published before transformers 5: base frequency at the top level, `torch_dtype`, extra fields."""
    config = read(
        tmp_path,
        {
            "architectures": ["Ernie4_5_MoeForCausalLM"],
            "bos_token_id": 1,
            "eos_token_id": 2,
            "hidden_act": "silu",
            "hidden_size": 2560,
            "intermediate_size": 12288,
            "max_position_embeddings": 131072,
            "model_type": "ernie4_5_moe",
            "moe_capacity": [64, 64, 64],
            "moe_gate": "topk",
            "moe_intermediate_size": 1536,
            "moe_k": 6,
            "moe_layer_end_index": -1,
            "moe_layer_interval": 1,
            "moe_layer_start_index": 1,
            "moe_num_experts": 64,
            "moe_num_shared_experts": 2,
            "num_attention_heads": 20,
            "num_hidden_layers": 28,
            "num_key_value_heads": 4,
            "num_nextn_predict_layers": 1,
            "rms_norm_eps": 1e-05,
            "rope_scaling": None,
            "rope_theta": 500000.0,
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
            "use_bias": False,
            "vocab_size": 103424,
        },
    )
    assert config.moe is not None
    assert (config.head_dim, config.rope_theta, config.dtype) == (128, 500000.0, "bfloat16")
    assert (config.moe.num_experts, config.moe.top_k, config.moe.num_shared_experts) == (64, 6, 2)
    assert [layer for layer in range(28) if not config.is_moe_layer(layer)] == [0]


def test_saved_defaults_are_read_as_transformers_has_them(tmp_path: Path) -> None:
    theirs = Ernie4_5_MoeConfig()
    theirs.save_pretrained(tmp_path)
    ours = ModelConfig.from_dir(tmp_path)
    assert ours.moe is not None
    assert (ours.vocab_size, ours.hidden_size, ours.num_layers) == (103424, 2560, 28)
    assert (ours.max_position_embeddings, ours.rms_norm_eps) == (theirs.max_position_embeddings, theirs.rms_norm_eps)
    assert (ours.rope_theta, ours.moe.norm_min) == (500000.0, theirs.moe_norm_min)


def test_absent_fields_mean_the_defaults_of_transformers(tmp_path: Path) -> None:
    config = read(tmp_path, {name: value for name, value in DENSE.items() if name != "head_dim"})
    assert (config.head_dim, config.rope_theta, config.use_bias) == (128, 500000.0, False)
    assert (config.tie_word_embeddings, config.eos_token_ids, config.dtype) == (True, (), None)
    assert read(tmp_path, {**DENSE, "head_dim": None}).head_dim == 16
    assert read(tmp_path, {**DENSE, "num_key_value_heads": None}).num_kv_heads == 4


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 10000.0},
        {"rope_theta": 10000, "rope_scaling": None},
        {"rope_theta": 10000.0, "rope_scaling": {"rope_type": "default"}},
        {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}},
        {"rope_parameters": {"rope_theta": 10000.0}, "rope_theta": 5.0},
    ],
    ids=str,
)
def test_rope_theta_is_found_wherever_it_stands(tmp_path: Path, rope: dict[str, Any]) -> None:
    assert read(tmp_path, {**DENSE, **rope}).rope_theta == 10000.0


@pytest.mark.parametrize(("value", "expected"), [(2, (2,)), ([2, 7], (2, 7)), (None, ())])
def test_eos_token_ids_are_one_many_or_none(tmp_path: Path, value: object, expected: tuple[int, ...]) -> None:
    assert read(tmp_path, {**MOE, "eos_token_id": value}).eos_token_ids == expected


@pytest.mark.parametrize("interval", [1, 2, 3])
@pytest.mark.parametrize("start", [0, 1, 3])
@pytest.mark.parametrize("end", [-1, 4])
def test_moe_layers_are_those_of_transformers(tmp_path: Path, interval: int, start: int, end: int) -> None:
    fields: dict[str, Any] = {
        **TINY,
        **TINY_MOE,
        "num_hidden_layers": 6,
        "moe_layer_interval": interval,
        "moe_layer_start_index": start,
        "moe_layer_end_index": end,
    }
    theirs = Ernie4_5_MoeForCausalLM(Ernie4_5_MoeConfig(**fields))
    ours = read(tmp_path, {"model_type": "ernie4_5_moe", **fields})
    has_experts = [hasattr(layer.mlp, "experts") for layer in theirs.model.layers]
    assert [ours.is_moe_layer(layer) for layer in range(6)] == has_experts


def test_dense_model_has_no_moe_layer(tmp_path: Path) -> None:
    config = read(tmp_path, DENSE)
    assert config.moe is None
    assert not config.is_moe_layer(1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_type", "llama"),
        ("model_type", "ernie4_5_vl_moe"),
        ("model_type", None),
        ("hidden_act", "gelu"),
        ("quantization_config", {"quant_method": "fp8"}),
        ("rope_scaling", {"type": "linear", "factor": 2.0}),
        ("rope_parameters", {"rope_type": "yarn", "rope_theta": 1e6}),
        ("rope_parameters", []),
        ("rope_theta", "big"),
        ("num_attention_heads", 3),
        ("hidden_size", 0),
        ("hidden_size", "64"),
        ("hidden_size", True),
        ("hidden_size", None),
        ("head_dim", 15),
        ("use_bias", "no"),
        ("rms_norm_eps", -1.0),
        ("eos_token_id", "</s>"),
        ("dtype", "float8_e4m3fn"),
        ("torch_dtype", "int8"),
        ("moe_k", 9),
        ("moe_num_experts", 0),
        ("moe_num_shared_experts", -1),
        ("moe_intermediate_size", None),
        ("moe_layer_end_index", -2),
    ],
)
def test_field_that_cannot_be_served_is_named(tmp_path: Path, field: str, value: object) -> None:
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path, {**MOE, field: value})
    assert str(tmp_path / "config.json") in caught.value.message
    assert field in caught.value.message
    assert "is missing" in caught.value.message if value is None else repr(value) in caught.value.message


def test_hidden_size_not_split_evenly_over_heads_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"hidden_size is 66; .*multiple of num_attention_heads"):
        read(tmp_path, {**MOE, "hidden_size": 66})


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "not valid JSON"), (b"\xff\xfe", "not valid JSON"), (b"[1]", "JSON list")],
)
def test_unreadable_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        ModelConfig.from_dir(tmp_path)
    assert "config.json" in caught.value.message


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere/config\.json does not exist"):
        ModelConfig.from_dir(tmp_path / "nowhere")


def test_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(CheckpointError, match="cannot be read"):
        ModelConfig.from_dir(tmp_path)
