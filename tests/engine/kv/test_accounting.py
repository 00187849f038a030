import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, consumes, invariant, multiple, rule

from engine.kv.accounting import ALLOWED_MOVES, BlockAccounting, BlockState

NUM_BLOCKS = 24
FREE, RUNNING, LEASED, QUARANTINED = BlockState


class Books(RuleBasedStateMachine):
    """Random work on a pool; every group of blocks taken together stays together in the bundle."""

    groups: Bundle[tuple[int, ...]] = Bundle("groups")

    def __init__(self) -> None:
        super().__init__()
        self.blocks = BlockAccounting(NUM_BLOCKS)
        self.expected: dict[int, BlockState] = dict.fromkeys(range(NUM_BLOCKS), FREE)

    @rule(target=groups, num_blocks=st.integers(0, NUM_BLOCKS + 2), state=st.sampled_from([RUNNING, LEASED]))
    def allocate(self, num_blocks: int, state: BlockState) -> tuple[int, ...] | MultipleResults[tuple[int, ...]]:
        num_free = self.blocks.num_free
        block_ids = self.blocks.try_allocate(num_blocks, state)
        if num_blocks > num_free:
            assert block_ids is None
            return multiple()
        assert block_ids is not None
        assert len(set(block_ids)) == num_blocks
        assert all(self.expected[block_id] is FREE for block_id in block_ids)
        self.expected.update(dict.fromkeys(block_ids, state))
        return tuple(block_ids)

    @rule(target=groups, group=consumes(groups), to=st.sampled_from([RUNNING, LEASED, QUARANTINED]))
    def move(self, group: tuple[int, ...], to: BlockState) -> tuple[int, ...]:
        source = self.expected[group[0]] if group else RUNNING
        if (source, to) in ALLOWED_MOVES:
            self.blocks.move(group, source, to)
            self.expected.update(dict.fromkeys(group, to))
        else:
            with pytest.raises(AssertionError):
                self.blocks.move(group, source, to)
        return group

    @rule(group=consumes(groups))
    def release(self, group: tuple[int, ...]) -> None:
        self.blocks.release(group)
        self.expected.update(dict.fromkeys(group, FREE))

    @invariant()
    def books_agree(self) -> None:
        self.blocks.check()
        assert {i: self.blocks.state_of(i) for i in range(NUM_BLOCKS)} == self.expected
        counts = self.blocks.counts()
        assert sum(counts.values()) == NUM_BLOCKS
        assert counts[FREE] == self.blocks.num_free


Books.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBooks = Books.TestCase


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


def test_double_release_asserts() -> None:
    blocks = BlockAccounting(2)
    block_ids = blocks.try_allocate(1)
    assert block_ids is not None
    blocks.release(block_ids)
    with pytest.raises(AssertionError):
        blocks.release(block_ids)


def test_move_from_a_wrong_state_asserts() -> None:
    blocks = BlockAccounting(2)
    block_ids = blocks.try_allocate(1)
    assert block_ids is not None
    with pytest.raises(AssertionError, match="is running, expected leased"):
        blocks.move(block_ids, LEASED, QUARANTINED)


def test_freeing_by_move_asserts() -> None:
    blocks = BlockAccounting(2)
    block_ids = blocks.try_allocate(1)
    assert block_ids is not None
    with pytest.raises(AssertionError, match="release"):
        blocks.move(block_ids, RUNNING, FREE)
