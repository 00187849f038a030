import json
from pathlib import Path

import pytest
from transformers import Ernie4_5_VLMoeConfig

from core.errors import CheckpointError
from deploy.planning.presets import PRESETS_DIR, preset_names, preset_path
from deploy.planning.shape import VisionTower, read_shape
from engine.config import ModelConfig
from tests.deploy.planning.configs import DENSE, MOE, preset, shape_of

TOWER = VisionTower(depth=32, width=1280, mlp_width=5120, patch_elements=588, spatial_merge=2, temporal_merge=2)


@pytest.mark.parametrize("values", [MOE, DENSE])
def test_text_model_is_read_as_the_engine_reads_it(tmp_path: Path, values: dict[str, object]) -> None:
    shape = shape_of(tmp_path, values)
    assert shape.text == ModelConfig.from_dir(tmp_path)
    assert (shape.vision, shape.num_vision_experts, shape.quantization, shape.unserved_reason) == (
        None,
        0,
        None,
        None,
    )


def test_vision_language_model_is_read_alike_from_both_layouts(tmp_path: Path) -> None:
    """As Baidu published it, and as transformers saves the same model."""
    published = preset("ernie-4.5-vl-28b-a3b")
    Ernie4_5_VLMoeConfig().save_pretrained(tmp_path)
    saved = read_shape(tmp_path / "config.json")
    for shape in (published, saved):
        assert (shape.num_vision_experts, shape.vision_expert_width) == (64, 512)
        assert shape.vision == TOWER
        assert shape.text.moe is not None
        assert (shape.text.moe.num_experts, shape.text.moe.intermediate_size) == (64, 1536)
        assert (shape.text.hidden_size, shape.text.num_layers, shape.text.num_kv_heads) == (2560, 28, 4)
        assert [layer for layer in range(28) if not shape.text.is_moe_layer(layer)] == [0]
        assert shape.unserved_reason == "vision-language models can be planned, not served yet"


def test_dense_layers_of_a_saved_vision_language_model_are_counted(tmp_path: Path) -> None:
    values = Ernie4_5_VLMoeConfig().to_dict()
    values["text_config"]["mlp_layer_types"] = ["dense"] * 3 + ["sparse"] * 25
    shape = shape_of(tmp_path, values)
    assert [layer for layer in range(28) if not shape.text.is_moe_layer(layer)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("stored", "name"), [({"quantization": "mix_quant"}, "mix_quant"), ({"quant_method": "fp8"}, "fp8")]
)
def test_quantized_checkpoint_can_be_planned_not_served(tmp_path: Path, stored: dict[str, str], name: str) -> None:
    shape = shape_of(tmp_path, {**MOE, "quantization_config": stored})
    assert shape.unserved_reason == f"checkpoints quantized as '{name}' can be planned, not served yet"
    with pytest.raises(CheckpointError, match="quantization_config"):
        ModelConfig.from_dir(tmp_path)


@pytest.mark.parametrize("model_type", ["llama", None, 3])
def test_other_model_is_refused_with_its_type(tmp_path: Path, model_type: object) -> None:
    with pytest.raises(CheckpointError, match=r"an ERNIE 4\.5 model"):
        shape_of(tmp_path, {**MOE, "model_type": model_type})


def test_every_preset_says_where_its_numbers_are_from() -> None:
    assert len(preset_names()) == 5
    for name in preset_names():
        values = json.loads((PRESETS_DIR / f"{name}.json").read_text())
        assert all(len(sentence) > 20 for sentence in values["_source"])
        assert preset(name).text.max_position_embeddings == 131_072


@pytest.mark.parametrize("name", ["ERNIE-4.5-0.3B", "ernie-4.5-0.3b"])
def test_preset_is_found_by_its_name_in_any_case(name: str) -> None:
    assert preset_path(name) == PRESETS_DIR / "ernie-4.5-0.3b.json"


@pytest.mark.parametrize("name", ["", "ernie", "../presets/ernie-4.5-0.3b", "ernie-4.5-0.3b.json"])
def test_other_names_are_no_presets(name: str) -> None:
    assert preset_path(name) is None
