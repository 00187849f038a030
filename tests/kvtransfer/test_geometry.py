from dataclasses import replace

import pytest

from core.errors import IncompatibleLayoutError
from engine.kv.layout import KvLayout
from engine.parallel.axis_part import AxisPart
from engine.parallel.topology import ShardTopology
from kvtransfer.geometry import WorkerGeometry, reconcile

LAYOUT = KvLayout(num_layers=4, kv_heads=2, block_tokens=16, head_dim=8, dtype="bfloat16")
ALONE = WorkerGeometry(LAYOUT, total_kv_heads=2, tensor_parallel_size=1, num_partitions=1, num_blocks=12)


def of_topology(topology: ShardTopology, total_heads: int, num_blocks: int = 12) -> WorkerGeometry:
    heads = max(1, total_heads // topology.tensor_parallel_size)
    layout = replace(LAYOUT, kv_heads=heads)
    return WorkerGeometry(layout, total_heads, topology.tensor_parallel_size, topology.num_partitions, num_blocks)


@pytest.mark.parametrize("tensors", [1, 2, 4])
@pytest.mark.parametrize("experts", [1, 2, 4])
@pytest.mark.parametrize("total_heads", [1, 2, 4])
def test_ranks_hold_the_heads_that_the_engine_gives_them(tensors: int, experts: int, total_heads: int) -> None:
    if 1 not in (tensors, experts) and tensors != experts:
        return  # refused by ShardTopology
    topology = ShardTopology(tensors, experts)
    geometry = of_topology(topology, total_heads)
    assert geometry.num_ranks == topology.world_size
    for number in range(geometry.num_ranks):
        part = AxisPart.share(total_heads, 1, number if tensors > 1 else 0, tensors)
        rank = geometry.rank(number)
        assert (rank.first_head, rank.end_head) == (part.first, part.first + part.size)
        assert rank.num_blocks == 12 // topology.num_partitions
        assert number in geometry.ranks_of(number if topology.is_data_parallel else 0)


def test_more_ranks_than_heads_are_replicas() -> None:
    assert of_topology(ShardTopology(4, 1), 2).num_replicas == 2
    assert of_topology(ShardTopology(2, 1), 4).num_replicas == 1


@pytest.mark.parametrize(
    "change",
    [
        {"total_kv_heads": 3},
        {"total_kv_heads": 0},
        {"tensor_parallel_size": 2},
        {"tensor_parallel_size": 0},
        {"num_partitions": 5},
        {"num_partitions": 0},
        {"num_blocks": 0},
        {"layout": replace(LAYOUT, dtype="int4")},
        {"layout": replace(LAYOUT, block_tokens=0)},
    ],
)
def test_numbers_that_do_not_go_together_are_refused_and_named(change: dict[str, object]) -> None:
    with pytest.raises(IncompatibleLayoutError, match=r"there is no division .* KV heads .* blocks of .* tokens"):
        replace(ALONE, **change)  # type: ignore[arg-type] # of the right types


@pytest.mark.parametrize(
    ("mine", "theirs", "message"),
    [
        ({"num_layers": 4}, {"num_layers": 6}, "num_layers is 4 here and 6 there"),
        ({"head_dim": 8}, {"head_dim": 16}, "head_dim is 8 here and 16 there"),
        ({"dtype": "bfloat16"}, {"dtype": "float32"}, "dtype is bfloat16 here and float32 there"),
        ({"block_tokens": 16}, {"block_tokens": 24}, "blocks are of 16 tokens here and of 24 there"),
        ({"block_tokens": 64}, {"block_tokens": 48}, "blocks are of 64 tokens here and of 48 there"),
    ],
)
def test_layouts_that_cannot_be_reconciled_are_refused_with_both_values_and_all_numbers(
    mine: dict[str, object], theirs: dict[str, object], message: str
) -> None:
    here = replace(ALONE, layout=replace(LAYOUT, **mine))  # type: ignore[arg-type] # of the right types
    there = replace(ALONE, layout=replace(LAYOUT, **theirs))  # type: ignore[arg-type] # of the right types
    with pytest.raises(IncompatibleLayoutError, match=message) as refused:
        reconcile(here, there)
    assert here.describe() in refused.value.message
    assert there.describe() in refused.value.message


def test_another_number_of_heads_is_refused() -> None:
    with pytest.raises(IncompatibleLayoutError, match="the number of KV heads is 2 here and 4 there"):
        reconcile(ALONE, of_topology(ShardTopology(2, 1), 4))


def test_other_ranks_partitions_pools_and_multiple_block_sizes_are_reconciled() -> None:
    for block_tokens in (8, 16, 64):
        theirs = replace(of_topology(ShardTopology(1, 2), 2, 20), layout=replace(LAYOUT, block_tokens=block_tokens))
        reconcile(ALONE, theirs)
        reconcile(theirs, ALONE)
