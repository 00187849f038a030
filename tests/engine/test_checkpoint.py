import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.errors import CheckpointError
from engine.checkpoint import INDEX_FILE, SINGLE_FILE, Checkpoint, weight_files
from engine.config import ModelConfig
from engine.engine import Engine
from engine.model import Ernie45Model
from engine.weights import TensorOptions, TensorSlot
from tests.engine.checkpoints import write_tiny_dense, write_tiny_moe

EXPERT = "model.layers.2.mlp.experts.5.up_proj.weight"


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    return write_tiny_moe(tmp_path)


@pytest.fixture
def sharded_dir(tmp_path: Path) -> Path:
    """Two shards: the experts and the rest."""
    write_tiny_moe(tmp_path)
    tensors = load_file(tmp_path / SINGLE_FILE)
    weight_map = {name: f"model-0000{1 + ('experts' in name)}-of-00002.safetensors" for name in tensors}
    for file_name in set(weight_map.values()):
        save_file({name: tensors[name] for name in tensors if weight_map[name] == file_name}, tmp_path / file_name)
    (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": weight_map}))
    (tmp_path / SINGLE_FILE).unlink()
    return tmp_path


def rewrite(model_dir: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(model_dir / SINGLE_FILE)
    change(tensors)
    save_file(tensors, model_dir / SINGLE_FILE)


def refusal(model_dir: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        Engine.load(model_dir, num_blocks=32)
    return caught.value.message


def test_tensors_are_listed_without_reading_weights(model_dir: Path) -> None:
    stored = Checkpoint(model_dir).tensors[EXPERT]
    assert (stored.shape, stored.dtype, stored.size_bytes) == ((32, 64), "F32", 32 * 64 * 4)


def test_every_tensor_of_the_model_has_its_slot(model_dir: Path) -> None:
    model = Ernie45Model(ModelConfig.from_dir(model_dir), TensorOptions(torch.float32, "meta"))
    checkpoint = Checkpoint(model_dir)
    assert {slot.names[0] for slot in model.slots()} == checkpoint.tensors.keys()


def test_routing_weights_stay_float32_whatever_the_rest(model_dir: Path) -> None:
    model = Ernie45Model(ModelConfig.from_dir(model_dir), TensorOptions(torch.bfloat16, "meta"))
    wide = {slot.names[0] for slot in model.slots() if slot.destination.dtype == torch.float32}
    assert wide == {
        f"model.layers.{layer}.mlp.{name}"
        for layer in (1, 2, 3)
        for name in ("gate.weight", "moe_statics.e_score_correction_bias")
    }


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("served", [torch.float32, torch.bfloat16])
def test_loaded_values_are_the_stored_ones_cast(tmp_path: Path, stored: torch.dtype, served: torch.dtype) -> None:
    write_tiny_moe(tmp_path, dtype=stored)
    model = Ernie45Model(ModelConfig.from_dir(tmp_path), TensorOptions(served, "cpu"))
    Checkpoint(tmp_path).load(model.slots())
    tensors = load_file(tmp_path / SINGLE_FILE)
    for slot in model.slots():
        assert torch.equal(slot.destination, tensors[slot.names[0]].to(slot.destination.dtype)), slot.names[0]


def test_strided_destination_is_filled(model_dir: Path) -> None:
    memory = torch.zeros(64, 32)
    Checkpoint(model_dir).load([TensorSlot((EXPERT,), memory.T)])
    assert torch.equal(memory.T, load_file(model_dir / SINGLE_FILE)[EXPERT])


def test_progress_counts_up_to_all_bytes(sharded_dir: Path) -> None:
    reports: list[tuple[int, int]] = []
    Engine.load(sharded_dir, num_blocks=32, progress=lambda done, total: reports.append((done, total)))
    total = sum(stored.size_bytes for stored in Checkpoint(sharded_dir).tensors.values())
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)
    assert reports[-1] == (total, total)


def test_next_token_prediction_heads_are_ignored(model_dir: Path) -> None:
    rewrite(model_dir, lambda tensors: tensors.update({"model.mtp_block.0.mlp.up_proj.weight": torch.zeros(3)}))
    Engine.load(model_dir, num_blocks=32)


def test_tied_checkpoint_may_repeat_the_output_projection(model_dir: Path) -> None:
    rewrite(
        model_dir, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].clone()})
    )
    Engine.load(model_dir, num_blocks=32)


@pytest.mark.parametrize(
    "name", [EXPERT, "model.norm.weight", "model.layers.1.mlp.moe_statics.e_score_correction_bias"]
)
def test_missing_tensor_is_named(model_dir: Path, name: str) -> None:
    rewrite(model_dir, lambda tensors: tensors.pop(name))
    assert f"no tensor {name}" in refusal(model_dir)


def test_missing_output_projection_is_named(tmp_path: Path) -> None:
    write_tiny_dense(tmp_path, tie_word_embeddings=False)
    rewrite(tmp_path, lambda tensors: tensors.pop("lm_head.weight"))
    assert "no tensor lm_head.weight" in refusal(tmp_path)


def test_misshapen_tensor_is_named_with_both_shapes(model_dir: Path) -> None:
    rewrite(model_dir, lambda tensors: tensors.update({EXPERT: torch.zeros(32, 63)}))
    message = refusal(model_dir)
    assert str(model_dir / SINGLE_FILE) in message
    assert f"{EXPERT} has shape [32, 63]" in message
    assert "[32, 64]" in message


def test_tensor_of_an_unserved_type_is_named(model_dir: Path) -> None:
    rewrite(model_dir, lambda tensors: tensors.update({EXPERT: torch.zeros(32, 64, dtype=torch.int8)}))
    assert f"{EXPERT} has type I8" in refusal(model_dir)


def test_buffers_saved_by_old_versions_are_ignored(model_dir: Path) -> None:
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    rewrite(model_dir, lambda tensors: tensors.update({name: torch.zeros(8)}))
    Engine.load(model_dir, num_blocks=32)


@pytest.mark.parametrize("name", ["model.layers.4.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.bias"])
def test_leftover_tensor_of_a_layer_is_named(model_dir: Path, name: str) -> None:
    rewrite(model_dir, lambda tensors: tensors.update({name: torch.zeros(3)}))
    assert f"{name} has no place" in refusal(model_dir)


def test_truncated_file_is_named_with_the_tensor_cut_off(model_dir: Path) -> None:
    path = model_dir / SINGLE_FILE
    last = list(Checkpoint(model_dir).tensors)[-1]
    path.write_bytes(path.read_bytes()[:-5])
    message = refusal(model_dir)
    assert str(path) in message
    assert f"{last} is cut off" in message


@pytest.mark.parametrize(
    "content",
    [b"", b"\x05\0\0", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0{", b"\x02\0\0\0\0\0\0\0[]", b'\x08\0\0\0\0\0\0\0{"a": 1}'],
)
def test_damaged_header_is_refused(model_dir: Path, content: bytes) -> None:
    (model_dir / SINGLE_FILE).write_bytes(content)
    assert str(model_dir / SINGLE_FILE) in refusal(model_dir)


@pytest.mark.parametrize("num_bytes", [5000, None])
def test_file_written_again_between_listing_and_loading_is_refused(model_dir: Path, num_bytes: int | None) -> None:
    """Also when its size is the same: the experts that are moved later would be another model's."""
    checkpoint = Checkpoint(model_dir)
    path = model_dir / SINGLE_FILE
    path.write_bytes(path.read_bytes()[:num_bytes])
    with pytest.raises(CheckpointError, match="was changed since the model was loaded; start again"):
        checkpoint.load([TensorSlot((EXPERT,), torch.empty(32, 64))])


def test_folder_without_weights_is_refused(model_dir: Path) -> None:
    (model_dir / SINGLE_FILE).unlink()
    message = refusal(model_dir)
    assert str(model_dir) in message
    assert SINGLE_FILE in message


def test_shards_load(sharded_dir: Path) -> None:
    assert [path.name for path in weight_files(sharded_dir)] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    Engine.load(sharded_dir, num_blocks=32)


def test_missing_shard_is_named(sharded_dir: Path) -> None:
    (sharded_dir / "model-00002-of-00002.safetensors").unlink()
    assert "model-00002-of-00002.safetensors does not exist" in refusal(sharded_dir)


def test_index_that_promises_too_much_is_named(sharded_dir: Path) -> None:
    index = json.loads((sharded_dir / INDEX_FILE).read_text())
    index["weight_map"][EXPERT] = "model-00001-of-00002.safetensors"
    (sharded_dir / INDEX_FILE).write_text(json.dumps(index))
    message = refusal(sharded_dir)
    assert INDEX_FILE in message
    assert EXPERT in message


@pytest.mark.parametrize("content", ["{", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
def test_damaged_index_is_named(sharded_dir: Path, content: str) -> None:
    (sharded_dir / INDEX_FILE).write_text(content)
    assert INDEX_FILE in refusal(sharded_dir)


def test_index_that_leaves_the_folder_is_refused(sharded_dir: Path) -> None:
    (sharded_dir / INDEX_FILE).write_text(json.dumps({"weight_map": {"a": "../other/model.safetensors"}}))
    assert "'../other/model.safetensors'" in refusal(sharded_dir)
