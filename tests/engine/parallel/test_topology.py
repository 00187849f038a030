import json
import shutil
from pathlib import Path

import pytest

from core.errors import ConfigError
from engine.config import ModelConfig
from engine.engine import Engine
from engine.parallel.topology import ShardTopology
from tests.engine.conftest import Served
from tests.engine.parallel.posing import PosingCommunicator


@pytest.mark.parametrize(
    ("sizes", "world_size", "num_partitions"),
    [((1, 1), 1, 1), ((4, 1), 4, 1), ((2, 2), 2, 1), ((1, 4), 4, 4), ((1, 2, 4), 2, 2)],
)
def test_sizes_say_how_many_ranks_and_partitions(
    sizes: tuple[int, ...], world_size: int, num_partitions: int
) -> None:
    topology = ShardTopology(*sizes)
    assert (topology.world_size, topology.num_partitions) == (world_size, num_partitions)
    assert topology.is_data_parallel == (num_partitions > 1)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, 1), "--tensor-parallel-size is 0"),
        ((1, -1), "--expert-parallel-size is -1"),
        ((1, 2, -2), "--num-redundant-experts is -2"),
        ((2, 4), "--expert-parallel-size is 4 beside --tensor-parallel-size 2"),
        ((4, 2), "--expert-parallel-size is 2 beside --tensor-parallel-size 4"),
        ((2, 1, 2), "--num-redundant-experts is 2, but one rank"),
        ((1, 4, 2), r"--num-redundant-experts is 2; .* multiple of --expert-parallel-size \(4\)"),
    ],
    ids=str,
)
def test_sizes_that_do_not_go_together_are_named(sizes: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ShardTopology(*sizes)


@pytest.mark.parametrize(
    ("sizes", "overrides", "message"),
    [
        ((3, 1), {}, r"--tensor-parallel-size is 3, .* num_attention_heads \(4\)"),
        ((2, 1), {"vocab_size": 161}, r"--tensor-parallel-size is 2, .* vocab_size \(161\)"),
        ((4, 4), {"intermediate_size": 90}, r"--tensor-parallel-size is 4, .* intermediate_size \(90\)"),
        ((2, 1), {"moe_intermediate_size": 31}, r"--tensor-parallel-size is 2, .* moe_intermediate_size \(31\)"),
        ((2, 2), {"moe_intermediate_size": 31}, r"moe_intermediate_size times moe_num_shared_experts \(31\)"),
        (
            (4, 4),
            {"num_attention_heads": 24, "num_key_value_heads": 6, "head_dim": 4},
            r"--tensor-parallel-size is 4, .* num_key_value_heads \(6\)",
        ),
        ((1, 3), {}, r"--expert-parallel-size is 3, .* moe_num_experts \(8\)"),
        ((1, 2, 10), {}, "--num-redundant-experts is 10; set at most 8"),
        ((1, 2), {"model_type": "ernie4_5"}, "--expert-parallel-size is 2, but .* without experts"),
    ],
    ids=str,
)
def test_model_that_cannot_be_divided_is_refused_before_a_weight_is_looked_for(
    moe: Served, tmp_path: Path, sizes: tuple[int, ...], overrides: dict[str, object], message: str
) -> None:
    """The folder has no weights, and that is not what is complained about."""
    fields = json.loads((moe.model_dir / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**fields, **overrides}))
    with pytest.raises(ConfigError, match=message):
        Engine.load(tmp_path, num_blocks=64, topology=ShardTopology(*sizes))


def test_width_of_dense_layers_counts_only_where_there_are_any(moe: Served, tmp_path: Path) -> None:
    shutil.copy(moe.model_dir / "config.json", tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    fields.update({"intermediate_size": 90, "moe_layer_start_index": 0})
    (tmp_path / "config.json").write_text(json.dumps(fields))
    ShardTopology(4, 4).check(ModelConfig.from_dir(tmp_path))


def test_every_rank_has_a_kv_head(moe: Served) -> None:
    config = moe.engine.config
    assert [ShardTopology(size, 1).kv_heads(config) for size in (1, 2, 4)] == [2, 1, 1]
    assert ShardTopology(1, 4).kv_heads(config) == 2


def test_blocks_that_ranks_cannot_share_equally_are_refused(moe: Served) -> None:
    with pytest.raises(ConfigError, match="num_blocks is 65; it must be a multiple of the 2 ranks"):
        Engine.load(moe.model_dir, num_blocks=65, topology=ShardTopology(1, 2), communicator=PosingCommunicator(0, 2))


def test_host_tier_of_a_group_is_refused(moe: Served) -> None:
    with pytest.raises(ConfigError, match="--kv-host-gb needs a worker of one rank"):
        Engine.load(
            moe.model_dir,
            num_blocks=64,
            num_host_blocks=1,
            topology=ShardTopology(1, 2),
            communicator=PosingCommunicator(0, 2),
        )


def test_partition_too_small_for_one_sequence_is_refused(moe: Served) -> None:
    message = "num_blocks is 62, .* 512 tokens on each of 2 ranks needs 64 blocks"
    with pytest.raises(ConfigError, match=message):
        Engine.load(moe.model_dir, num_blocks=62, topology=ShardTopology(1, 2), communicator=PosingCommunicator(0, 2))
