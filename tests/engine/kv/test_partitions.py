"""Blocks in partitions, one per rank of a data-parallel group."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kv.accounting import BlockAccounting
from engine.kv.layout import KvLayout
from engine.kv.pool import BlockPool

NUM_BLOCKS = 24
PARTITIONS = 3
PER_PARTITION = NUM_BLOCKS // PARTITIONS
LAYOUT = KvLayout(num_layers=3, kv_heads=2, block_tokens=4, head_dim=8, dtype="bfloat16")

# How many blocks to add to which sequence; zero ends it.
orders = st.lists(st.tuples(st.integers(0, 5), st.integers(0, PER_PARTITION + 1)), max_size=60)


@settings(max_examples=200, deadline=None)
@given(orders)
def test_sequences_never_cross_partitions(orders: list[tuple[int, int]]) -> None:
    blocks = BlockAccounting(NUM_BLOCKS, PARTITIONS)
    sequences: dict[int, list[int]] = {}
    for name, num_blocks in orders:
        held = sequences.setdefault(name, [])
        if num_blocks == 0:
            blocks.release(sequences.pop(name))
            continue
        room = PER_PARTITION - used(sequences, blocks, blocks.partition_of(held[0])) if held else most_room(sequences)
        taken = blocks.try_allocate(num_blocks, beside=held)
        assert (taken is None) == (num_blocks > room)
        held += taken or []
        blocks.check()
        for block_ids in sequences.values():
            assert len({block_id // PER_PARTITION for block_id in block_ids}) <= 1
        assert blocks.num_free_together == most_room(sequences)


def used(sequences: dict[int, list[int]], blocks: BlockAccounting, partition: int) -> int:
    return sum(blocks.partition_of(block_id) == partition for held in sequences.values() for block_id in held)


def most_room(sequences: dict[int, list[int]]) -> int:
    held = [block_id // PER_PARTITION for block_ids in sequences.values() for block_id in block_ids]
    return PER_PARTITION - min(held.count(partition) for partition in range(PARTITIONS))


def test_new_sequences_spread_over_the_partitions() -> None:
    blocks = BlockAccounting(NUM_BLOCKS, PARTITIONS)
    firsts = [(blocks.try_allocate(2) or [])[0] for _ in range(2 * PARTITIONS)]
    assert [blocks.partition_of(first) for first in firsts] == [0, 1, 2, 0, 1, 2]


def test_blocks_that_do_not_divide_assert() -> None:
    with pytest.raises(AssertionError, match="10 blocks in 3 partitions"):
        BlockAccounting(10, 3)


def test_a_rank_has_memory_for_its_partition_only() -> None:
    pool = BlockPool(LAYOUT, 6, num_partitions=2)
    assert (pool.num_blocks, len(pool.tensor)) == (6, 3)
