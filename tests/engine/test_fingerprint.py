import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.errors import CheckpointError
from engine.fingerprint import fingerprint
from tests.engine.checkpoints import write_tiny_dense


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    return write_tiny_dense(tmp_path / "model")


def test_copy_has_the_same_fingerprint(model_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(model_dir, tmp_path / "copy")
    name = fingerprint(model_dir, "bfloat16")
    assert len(name) == 32
    assert int(name, 16) >= 0
    assert fingerprint(tmp_path / "copy", "bfloat16") == name


def test_dtype_config_and_weights_change_it(model_dir: Path) -> None:
    tensors = load_file(model_dir / "model.safetensors")
    save_file(tensors, model_dir / "model.safetensors")  # as below, so that headers differ only where they should
    names = [fingerprint(model_dir, "bfloat16"), fingerprint(model_dir, "float32")]
    save_file({name: tensor * 1.01 for name, tensor in tensors.items()}, model_dir / "model.safetensors")
    names.append(fingerprint(model_dir, "float32"))
    save_file({name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}, model_dir / "model.safetensors")
    names.append(fingerprint(model_dir, "float32"))
    config = model_dir / "config.json"
    config.write_text(config.read_text().replace("500000.0", "10000.0"))
    names.append(fingerprint(model_dir, "float32"))
    assert len(set(names)) == 5


def test_folder_without_weights_is_refused(model_dir: Path) -> None:
    (model_dir / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        fingerprint(model_dir, "bfloat16")
