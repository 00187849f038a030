from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from core.blocks import BlockName
from engine.kv.accounting import ALLOWED_MOVES, BlockAccounting, BlockState, Hold

NUM_BLOCKS = 12
RUNNING, LEASED, QUARANTINED = Hold
STRONGEST_FIRST = (QUARANTINED, LEASED, RUNNING)


def name_of(path: Sequence[int]) -> BlockName:
    return bytes(path)


@dataclass
class Holder:
    """Somebody with blocks for the parts of a path, some of whose first ones have names."""

    path: tuple[int, ...]
    block_ids: list[int] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)
    num_named: int = 0


class Books(RuleBasedStateMachine):
    """Random holders of overlapping chains, against books kept the simple way: by looking at all holders."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = BlockAccounting(NUM_BLOCKS, self.on_evict)
        self.holders: list[Holder] = []
        self.named: dict[BlockName, int] = {}
        self.let_go: list[int] = []  # blocks with names and without holders, the one let go first first
        self.num_evicted = 0

    def on_evict(self, victims: Sequence[tuple[int, BlockName]]) -> None:
        self.num_evicted += len(victims)
        for block_id, name in victims:
            assert block_id == self.let_go.pop(0), "the least recently used block goes first"
            assert self.named.pop(name) == block_id
            children = [other for other in self.named if other[:-1] == name]
            assert not children, f"{name!r} is evicted before {children}"

    @rule(
        path=st.lists(st.integers(0, 1), min_size=1, max_size=6).map(tuple), hold=st.sampled_from([RUNNING, LEASED])
    )
    def hold_path(self, path: tuple[int, ...], hold: Hold) -> None:
        """Shares what is there and allocates the rest, or takes nothing."""
        holder = Holder(path)
        while len(holder.block_ids) < len(path):
            block_id = self.blocks.find(name_of(path[: holder.num_named + 1]))
            assert block_id == self.named.get(name_of(path[: holder.num_named + 1]))
            if block_id is None:
                break
            self.blocks.share(block_id, hold)
            self.let_go = [other for other in self.let_go if other != block_id]
            holder.block_ids.append(block_id)
            holder.holds.append(hold)
            holder.num_named += 1
        num_free, num_missing = self.blocks.num_free, len(path) - len(holder.block_ids)
        new = self.blocks.try_allocate(num_missing, hold)
        if new is None:
            assert num_missing > num_free
            self.holders.append(holder)
            self.release(len(self.holders) - 1)
            return
        assert num_missing <= num_free
        assert not set(new) & {block_id for other in (*self.holders, holder) for block_id in other.block_ids}
        holder.block_ids += new
        holder.holds += [hold] * num_missing
        self.holders.append(holder)

    @precondition(lambda self: self.holders)
    @rule(index=st.integers(0, 100))
    def publish(self, index: int) -> None:
        """The next block of a holder becomes final; a block that has its name already takes its place."""
        holder = self.holders[index % len(self.holders)]
        i = holder.num_named
        if i == len(holder.path) or holder.holds[i] is not RUNNING:
            return
        own, name = holder.block_ids[i], name_of(holder.path[: i + 1])
        owner = self.blocks.publish(own, name)
        assert owner == self.named.setdefault(name, own)
        if owner != own:
            self.blocks.share(owner)
            self.let_go = [other for other in self.let_go if other != owner]
            self.blocks.release([own])
            holder.block_ids[i] = owner
        holder.num_named += 1

    @precondition(lambda self: self.holders)
    @rule(index=st.integers(0, 100), source=st.sampled_from(Hold), to=st.sampled_from(Hold))
    def move(self, index: int, source: Hold, to: Hold) -> None:
        holder = self.holders[index % len(self.holders)]
        chosen = [i for i, hold in enumerate(holder.holds) if hold is source]
        if (source, to) not in ALLOWED_MOVES:
            with pytest.raises(AssertionError, match="no hold goes from"):
                self.blocks.move([], source, to)
            return
        self.blocks.move([holder.block_ids[i] for i in chosen], source, to)
        for i in chosen:
            holder.holds[i] = to

    @precondition(lambda self: self.holders)
    @rule(index=st.integers(0, 100))
    def release(self, index: int) -> None:
        holder = self.holders.pop(index % len(self.holders))
        held = Counter(block_id for other in self.holders for block_id in other.block_ids)
        for i in reversed(range(len(holder.block_ids))):
            self.blocks.release([holder.block_ids[i]], holder.holds[i])
            if i < holder.num_named and not held[holder.block_ids[i]]:
                self.let_go.append(holder.block_ids[i])

    @invariant()
    def books_agree(self) -> None:
        self.blocks.check()
        states = [self.expected_state(block_id) for block_id in range(NUM_BLOCKS)]
        assert [self.blocks.state_of(block_id) for block_id in range(NUM_BLOCKS)] == states
        assert self.blocks.counts() == {state: states.count(state) for state in BlockState}
        assert self.blocks.num_free == states.count(BlockState.FREE) + states.count(BlockState.CACHED)
        assert self.blocks.num_evicted == self.num_evicted
        assert all(self.blocks.find(name) == block_id for name, block_id in self.named.items())

    def expected_state(self, block_id: int) -> BlockState:
        holds = {
            hold
            for holder in self.holders
            for held_id, hold in zip(holder.block_ids, holder.holds, strict=True)
            if held_id == block_id
        }
        for hold in STRONGEST_FIRST:
            if hold in holds:
                return BlockState(hold)
        return BlockState.CACHED if block_id in self.named.values() else BlockState.FREE


Books.TestCase.settings = settings(max_examples=150, stateful_step_count=50)
TestBooks = Books.TestCase


def taken(blocks: BlockAccounting, num_blocks: int) -> list[int]:
    block_ids = blocks.try_allocate(num_blocks)
    assert block_ids is not None
    return block_ids


def test_allocation_of_more_than_is_free_takes_nothing() -> None:
    blocks = BlockAccounting(4)
    blocks.try_allocate(3)
    assert blocks.try_allocate(2) is None
    assert blocks.num_free == 1
    blocks.check()


def test_freed_blocks_are_reused_first() -> None:
    """Their memory is warm, so the pool's pages are touched no faster than the load grows."""
    blocks = BlockAccounting(4)
    assert blocks.try_allocate(2) == [0, 1]
    blocks.release([0])
    assert blocks.try_allocate(3) == [0, 2, 3]


def test_free_blocks_are_taken_before_cached_ones() -> None:
    blocks = BlockAccounting(3)
    (cached,) = taken(blocks, 1)
    blocks.publish(cached, b"a")
    blocks.release([cached])
    assert cached not in taken(blocks, 2)
    assert (blocks.find(b"a"), blocks.num_free, blocks.num_evicted) == (cached, 1, 0)
    assert taken(blocks, 1) == [cached]
    assert (blocks.find(b"a"), blocks.num_free, blocks.num_evicted) == (None, 0, 1)


def test_block_in_use_is_not_evicted() -> None:
    blocks = BlockAccounting(2)
    (shared,) = taken(blocks, 1)
    blocks.publish(shared, b"a")
    blocks.share(shared, LEASED)
    blocks.release([shared])
    assert blocks.state_of(shared) is BlockState.LEASED
    assert blocks.try_allocate(2) is None
    blocks.release([shared], LEASED)
    assert blocks.state_of(shared) is BlockState.CACHED
    assert len(taken(blocks, 2)) == 2


def test_quarantine_of_one_holder_outlasts_the_others() -> None:
    blocks = BlockAccounting(1)
    (shared,) = taken(blocks, 1)
    blocks.publish(shared, b"a")
    blocks.share(shared, LEASED)
    blocks.move([shared], LEASED, QUARANTINED)
    blocks.release([shared])
    assert blocks.state_of(shared) is BlockState.QUARANTINED
    assert blocks.num_free == 0


def test_releasing_what_is_not_held_asserts() -> None:
    blocks = BlockAccounting(2)
    block_ids = taken(blocks, 1)
    with pytest.raises(AssertionError, match="nobody holds it leased"):
        blocks.release(block_ids, LEASED)
    blocks.release(block_ids)
    with pytest.raises(AssertionError, match="is free, nobody holds it running"):
        blocks.release(block_ids)


def test_sharing_a_block_without_a_name_asserts() -> None:
    blocks = BlockAccounting(2)
    with pytest.raises(AssertionError, match="nobody can share it"):
        blocks.share(taken(blocks, 1)[0])


def test_naming_asserts_that_the_block_is_held_and_has_no_name() -> None:
    blocks = BlockAccounting(2)
    with pytest.raises(AssertionError, match="nobody holds"):
        blocks.publish(0, b"a")
    (block_id,) = taken(blocks, 1)
    blocks.publish(block_id, b"a")
    with pytest.raises(AssertionError, match="has a name already"):
        blocks.publish(block_id, b"b")
