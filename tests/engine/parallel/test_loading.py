"""A rank reads its part of the checkpoint and nothing else, and holds no more in memory."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engine.checkpoint import Checkpoint
from engine.parallel.topology import ShardTopology
from tests.engine.checkpoints import write_tiny_moe
from tests.engine.conftest import Served
from tests.engine.parallel.posing import load_rank

LAYER = "model.layers.1.mlp"
ATTENTION = "model.layers.1.self_attn"


def test_tensor_parallel_ranks_hold_their_rows_and_columns(moe: Served) -> None:
    stored = load_file(moe.model_dir / "model.safetensors")
    held, _ = load_rank(moe.model_dir, ShardTopology(2, 1), 1)
    rows = ["q_proj", "k_proj", "v_proj"]
    expected = {f"{ATTENTION}.{name}.weight": stored[f"{ATTENTION}.{name}.weight"].chunk(2)[1] for name in rows}
    expected[f"{ATTENTION}.o_proj.weight"] = stored[f"{ATTENTION}.o_proj.weight"].chunk(2, dim=1)[1]
    expected[f"{LAYER}.experts.7.up_proj.weight"] = stored[f"{LAYER}.experts.7.up_proj.weight"].chunk(2)[1]
    expected[f"{LAYER}.experts.7.down_proj.weight"] = stored[f"{LAYER}.experts.7.down_proj.weight"].chunk(2, dim=1)[1]
    expected["model.embed_tokens.weight"] = stored["model.embed_tokens.weight"].chunk(2)[1]
    expected[f"{LAYER}.gate.weight"] = stored[f"{LAYER}.gate.weight"]
    for name, tensor in expected.items():
        assert torch.equal(held[name], tensor), name


def test_more_ranks_than_kv_heads_hold_the_same_head_in_pairs(moe: Served) -> None:
    name = f"{ATTENTION}.k_proj.weight"
    heads = load_file(moe.model_dir / "model.safetensors")[name].chunk(2)
    held = [load_rank(moe.model_dir, ShardTopology(4, 4), rank)[0][name] for rank in range(4)]
    assert [torch.equal(head, heads[rank // 2]) for rank, head in enumerate(held)] == [True] * 4


@pytest.mark.parametrize("sizes", [(2, 1), (2, 2), (4, 4), (1, 2), (1, 4)])
def test_ranks_read_every_divided_byte_once(moe: Served, sizes: tuple[int, int]) -> None:
    topology = ShardTopology(*sizes)
    stored = Checkpoint(moe.model_dir).tensors
    expert_bytes = sum(tensor.size_bytes for name, tensor in stored.items() if ".experts." in name)
    all_bytes = sum(tensor.size_bytes for tensor in stored.values())
    per_rank = [load_rank(moe.model_dir, topology, rank)[1] for rank in range(topology.world_size)]
    assert len(set(per_rank)) == 1
    assert per_rank[0] < all_bytes - expert_bytes + expert_bytes / topology.world_size + 1
    if topology.is_data_parallel:
        assert per_rank[0] == all_bytes - expert_bytes + expert_bytes // topology.world_size


def test_biases_of_summed_projections_are_on_one_rank(tmp_path: Path) -> None:
    write_tiny_moe(tmp_path, use_bias=True)
    held = [load_rank(tmp_path, ShardTopology(2, 2), rank)[0] for rank in range(2)]
    assert [f"{ATTENTION}.o_proj.bias" in names for names in held] == [True, False]
    assert [f"{ATTENTION}.q_proj.bias" in names for names in held] == [True, True]


NUM_EXPERTS = 16
RANKS = 4
PEAK_SCRIPT = """
import sys
from pathlib import Path
from engine.parallel.topology import ShardTopology
from tests.engine.parallel.posing import load_rank

def peak_bytes():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

before = peak_bytes()
held = load_rank(Path(sys.argv[1]), ShardTopology(1, int(sys.argv[2])), int(sys.argv[2]) - 1)
print(peak_bytes() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from /proc")
def test_resident_memory_is_that_of_the_ranks_experts(tmp_path: Path) -> None:
    """Peak included: nothing of the other experts is ever in memory."""
    sizes = {"moe_num_experts": NUM_EXPERTS, "hidden_size": 512, "moe_intermediate_size": 1024}
    write_tiny_moe(tmp_path, num_hidden_layers=1, moe_layer_start_index=0, moe_num_shared_experts=0, **sizes)
    expert_bytes = NUM_EXPERTS * 3 * 512 * 1024 * 4
    grown = {
        num_ranks: int(subprocess.check_output([sys.executable, "-c", PEAK_SCRIPT, tmp_path, str(num_ranks)]))
        for num_ranks in (1, RANKS)
    }
    assert grown[1] > 0.9 * expert_bytes
    assert expert_bytes / RANKS < grown[RANKS] < 1.5 * expert_bytes / RANKS
