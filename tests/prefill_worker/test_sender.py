"""What is sent between blocks of different sizes, and when."""

from collections import Counter

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from core.clock import ManualClock
from kvtransfer.move import MoveOutcome
from kvtransfer.port import Reservation
from prefill_worker.half import PrefillHalf
from tests.builders import DECODE, ListOutbox, ListPort, assignment, copy_tokens, drawn, keep_here, small_pool

NUM_BLOCKS = 64
BLOCK_TOKENS = (2, 4, 8, 16)


class Rig:
    """One prompt on a worker with blocks of one size, and its target with blocks of another."""

    def __init__(self, mine: int, theirs: int, num_tokens: int, num_present: int = 0) -> None:
        self.source, self.target = small_pool(NUM_BLOCKS, mine), small_pool(NUM_BLOCKS, theirs)
        self.port = ListPort()
        self.num_steps = 0
        self.half = PrefillHalf(
            self.source,
            self.port,
            ListOutbox(),
            ManualClock(),
            next_step=lambda: self.num_steps + 1,
            take_over=keep_here,
        )
        self.num_tokens = num_tokens
        self.remote = list(range(10, 10 + -(-num_tokens // theirs)))
        self.reserved = Reservation(num_present, self.remote[num_present:], theirs)
        self.half.assign("router-1", assignment("h", num_tokens))

    def step(self, budget: int) -> None:
        """Computes a chunk; a token's KV is its position, counted from 1."""
        slices = self.half.plan(budget)
        self.num_steps += 1
        for piece in slices:
            for position in range(piece.start, piece.end):
                block_id = piece.block_ids[position // self.source.layout.block_tokens]
                self.source.tensor[block_id, ..., position % self.source.layout.block_tokens, :] = position + 1
        self.half.apply(slices, drawn(slices, 5))
        self.source.check()

    def writes(self) -> list[tuple[int, int, int, int | None]]:
        """Of each: source blocks, target blocks, tokens skipped, step awaited."""
        moves, self.port.moves = self.port.moves, []
        return [(len(m.local_ids), len(m.remote_ids), m.skip_tokens, m.final_after_step) for m in moves]

    def received(self) -> list[float]:
        """The target's KV by position; 0 where nothing has come."""
        size = self.reserved.block_tokens
        kv = [self.target.tensor[self.remote[i // size], 0, 0, 0, i % size, 0] for i in range(self.num_tokens)]
        return torch.stack(kv).tolist()


def test_small_source_blocks_are_sent_by_the_target_block_until_the_end() -> None:
    rig = Rig(4, 16, 42)
    rig.step(18)
    rig.half.on_begun("h", rig.reserved)
    assert rig.writes() == [(4, 1, 0, None)]
    rig.half.on_written("h", 0, MoveOutcome(None), 0.0)
    rig.step(13)
    assert rig.writes() == []  # 31 tokens are computed, but no second target block is full
    rig.step(11)
    assert rig.writes() == [(7, 2, 0, 3)]


def test_small_target_blocks_that_are_there_are_skipped_inside_the_first_source_block() -> None:
    rig = Rig(16, 4, 42, num_present=5)
    rig.step(18)
    rig.half.on_begun("h", rig.reserved)
    assert rig.writes() == []  # [16, 20) is there, [20, 32) is not yet computed
    rig.step(15)
    assert rig.writes() == [(1, 3, 4, None)]
    rig.half.on_written("h", 0, MoveOutcome(None), 0.0)
    rig.step(64)
    assert rig.writes() == [(1, 3, 0, 3)]
    assert rig.half.stats.num_bytes_saved == 5 * rig.target.layout.block_bytes


@pytest.mark.parametrize("block_tokens", [0, 3, 6])
def test_sizes_that_do_not_divide_give_the_work_back(block_tokens: int) -> None:
    rig = Rig(4, 4, 12)
    rig.step(64)
    rig.half.on_begun("h", Reservation(0, [1, 2], block_tokens))
    assert [order[0] for order in rig.port.take()] == ["begin", "abort"]
    assert rig.half.pairs[DECODE.worker].failures == {"handoff_failed": 1}


@given(data=st.data(), mine=st.sampled_from(BLOCK_TOKENS), theirs=st.sampled_from(BLOCK_TOKENS))
def test_every_missing_token_arrives_once_and_no_source_block_is_in_two_writes(
    data: st.DataObject, mine: int, theirs: int
) -> None:
    num_tokens = data.draw(st.integers(1, 50), "prompt")
    num_present = data.draw(st.integers(0, num_tokens // theirs), "present")
    begun_after, ended_after = (data.draw(st.integers(0, 6)) for _ in range(2))
    rig = Rig(mine, theirs, num_tokens, num_present)
    num_present_tokens = num_present * theirs
    num_ended = 0
    for index in range(60):
        if index == begun_after:
            rig.step(1)
            rig.half.on_begun("h", rig.reserved)
        rig.step(data.draw(st.integers(1, 9)))
        if index > ended_after and num_ended < len(rig.port.moves):
            rig.half.on_written("h", num_ended, MoveOutcome(None), 0.0)
            num_ended += 1
    for move in rig.port.moves:
        assert 0 <= move.skip_tokens < mine
        copy_tokens(rig.source, rig.target, move)
    assert rig.port.orders[-1] == ("finish", "h", (5,), len(rig.reserved.block_ids))
    assert rig.received() == [0.0] * num_present_tokens + list(range(num_present_tokens + 1, num_tokens + 1))
    for ids in ("local_ids", "remote_ids"):
        assert max(Counter(i for move in rig.port.moves for i in getattr(move, ids)).values(), default=0) <= 1
