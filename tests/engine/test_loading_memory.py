"""Loading must not need much more memory than the model itself has afterwards."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from engine.checkpoint import INDEX_FILE
from engine.config import ModelConfig
from engine.model import Ernie45Model
from engine.weights import TensorOptions

MAX_PEAK = 1.2  # of the model's size

# Large experts, embedding and head beside small norms, as in a real model: about 150 million parameters.
CONFIG: dict[str, Any] = {
    "architectures": ["Ernie4_5_MoeForCausalLM"],
    "model_type": "ernie4_5_moe",
    "vocab_size": 60_000,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "moe_num_experts": 8,
    "moe_k": 2,
    "moe_num_shared_experts": 1,
    "moe_intermediate_size": 1024,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}

# Prints the highest resident memory while loading over that before, and what is resident afterwards, bytes.
LOAD = """
import sys
from pathlib import Path
import torch
from engine.engine import Engine

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

warm = torch.mm(torch.ones(64, 64, dtype=torch.bfloat16), torch.ones(64, 64, dtype=torch.bfloat16))
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
before = status("VmRSS")
engine = Engine.load(Path(sys.argv[1]), dtype=sys.argv[2], num_blocks=4)
print(status("VmHWM") - before, status("VmRSS") - before)
"""


def write_checkpoint(folder: Path, dtype: torch.dtype) -> None:
    """Zeros of every shape the model has. The head, a large tensor, comes last, when all else is in memory."""
    (folder / "config.json").write_text(json.dumps(CONFIG))
    model = Ernie45Model(ModelConfig.from_dir(folder), TensorOptions(dtype, "meta"))
    shapes = {slot.names[0]: slot.destination.shape for slot in model.slots()}
    weight_map = {name: f"model-0000{1 + (name == 'lm_head.weight')}-of-00002.safetensors" for name in shapes}
    for file_name in sorted(set(weight_map.values())):
        tensors = {n: torch.zeros(s, dtype=dtype) for n, s in shapes.items() if weight_map[n] == file_name}
        save_file(tensors, folder / file_name)
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": weight_map}))


def model_bytes(folder: Path, dtype: torch.dtype) -> int:
    slots = Ernie45Model(ModelConfig.from_dir(folder), TensorOptions(dtype, "meta")).slots()
    return sum(slot.destination.numel() * slot.destination.itemsize for slot in slots)


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's account of a process's memory")
@pytest.mark.parametrize(
    ("stored", "served"),
    [(torch.bfloat16, "bfloat16"), (torch.float32, "bfloat16"), (torch.bfloat16, "float32")],
    ids=["as-stored", "narrowed", "widened"],
)
def test_peak_memory_while_loading_is_little_more_than_the_model(
    tmp_path: Path, stored: torch.dtype, served: str
) -> None:
    write_checkpoint(tmp_path, stored)
    command = [sys.executable, "-c", LOAD, str(tmp_path), served]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    peak_bytes, after_bytes = map(int, result.stdout.split())
    size_bytes = model_bytes(tmp_path, getattr(torch, served))
    assert size_bytes > 200e6
    assert after_bytes > 0.9 * size_bytes  # the account sees the weights
    assert peak_bytes < MAX_PEAK * size_bytes
