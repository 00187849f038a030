"""Blocks in partitions, one per rank of a data-parallel group."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kv.accounting import BlockAccounting
from engine.kv.block_table import BlockTable
from engine.kv.layout import KvLayout
from engine.kv.pool import BlockPool

NUM_BLOCKS = 24
PARTITIONS = 3
PER_PARTITION = NUM_BLOCKS // PARTITIONS
LAYOUT = KvLayout(num_layers=3, kv_heads=2, block_tokens=4, head_dim=8, dtype="bfloat16")

# How many blocks to add to which sequence; zero ends it.
orders = st.lists(st.tuples(st.integers(0, 5), st.integers(0, PER_PARTITION + 1)), max_size=60)


@settings(max_examples=200)
@given(orders)
def test_sequences_never_cross_partitions(orders: list[tuple[int, int]]) -> None:
    blocks = BlockAccounting(NUM_BLOCKS, num_partitions=PARTITIONS)
    sequences: dict[int, list[int]] = {}
    for name, num_blocks in orders:
        held = sequences.setdefault(name, [])
        if num_blocks == 0:
            blocks.release(sequences.pop(name))
            continue
        partition = blocks.partition_of(held[0]) if held else None
        room = most_room(sequences) if partition is None else PER_PARTITION - used(sequences, blocks, partition)
        taken = blocks.try_allocate(num_blocks, partition=partition)
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
    blocks = BlockAccounting(NUM_BLOCKS, num_partitions=PARTITIONS)
    firsts = [(blocks.try_allocate(2) or [])[0] for _ in range(2 * PARTITIONS)]
    assert [blocks.partition_of(first) for first in firsts] == [0, 1, 2, 0, 1, 2]


def table(pool: BlockPool, prompt: list[int]) -> BlockTable:
    return BlockTable(pool, "", prompt)


PROMPT = list(range(16))  # four blocks


def test_a_prefix_is_shared_where_it_is_cached() -> None:
    """The second sequence goes to the fuller partition, for it has the blocks."""
    pool = BlockPool(LAYOUT, 24, num_partitions=3)
    first = table(pool, PROMPT)
    assert first.try_reserve(4, max_shared=4)
    first.publish(16)
    second = table(pool, PROMPT)
    assert second.try_reserve(6, max_shared=4)
    assert second.num_named == 4
    assert second.block_ids[:4] == first.block_ids
    assert second.try_grow(1)
    assert {pool.blocks.partition_of(block_id) for block_id in second.block_ids} == {0}
    pool.check()


def test_without_room_beside_the_prefix_it_is_computed_elsewhere() -> None:
    pool = BlockPool(LAYOUT, 12, num_partitions=2)
    first = table(pool, PROMPT)
    assert first.try_reserve(4, max_shared=4)
    first.publish(16)
    others = pool.blocks.try_allocate(2, partition=0)
    assert others is not None
    second = table(pool, PROMPT)
    assert second.try_reserve(5, max_shared=4)
    assert second.num_named == 0
    assert {pool.blocks.partition_of(block_id) for block_id in second.block_ids} == {1}
    second.publish(16)  # the same names, in a cache of its own
    assert second.num_named == 4
    assert not set(second.block_ids) & set(first.block_ids)
    for each in (first, second):
        each.release()
        pool.check()


def test_room_is_made_in_the_partition_that_is_asked() -> None:
    blocks = BlockAccounting(4, num_partitions=2)
    for partition, name in enumerate((b"a", b"b")):
        block_ids = blocks.try_allocate(2, partition=partition) or []
        blocks.publish(block_ids[0], name)
        blocks.release(block_ids)
    assert blocks.try_allocate(2, partition=1) is not None
    assert (blocks.find(b"a", 0), blocks.find(b"b", 1), blocks.num_evicted) == (0, None, 1)
    blocks.check()


def test_blocks_that_do_not_divide_assert() -> None:
    with pytest.raises(AssertionError, match="10 blocks in 3 partitions"):
        BlockAccounting(10, num_partitions=3)


def test_a_rank_has_memory_for_its_partition_only() -> None:
    pool = BlockPool(LAYOUT, 6, num_partitions=2)
    assert (pool.num_blocks, len(pool.tensor)) == (6, 3)
