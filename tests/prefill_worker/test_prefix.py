"""The prompt half with a prefix cache."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from core.clock import ManualClock
from core.errors import HandoffError
from engine.kv.accounting import BlockState
from engine.kv.pool import BlockPool
from engine.plan import SequenceSlice
from kvtransfer.move import MoveOutcome
from kvtransfer.port import Reservation
from prefill_worker.half import PrefillHalf
from tests.builders import ListOutbox, ListPort, assignment, drawn, keep_here, small_pool

ROUTER = "router-1"
TOKEN = 50
BLOCK_TOKENS = 4
REMOTE = list(range(100, 120))


@dataclass
class Rig:
    """Prompts are 1, 2, 3 ...: each begins as the shorter ones do."""

    pool: BlockPool = field(default_factory=lambda: small_pool(16, BLOCK_TOKENS, enable_prefix_caching=True))
    port: ListPort = field(default_factory=ListPort)
    outbox: ListOutbox = field(default_factory=ListOutbox)

    def __post_init__(self) -> None:
        self.half = PrefillHalf(
            self.pool, self.port, self.outbox, ManualClock(), next_step=lambda: 1, take_over=keep_here
        )

    def assign(self, handoff_id: str, num_prompt_tokens: int, max_new_tokens: int = 8) -> None:
        self.half.assign(ROUTER, assignment(handoff_id, num_prompt_tokens, max_new_tokens))

    def step(self, budget: int = 64) -> list[SequenceSlice]:
        slices = self.half.plan(budget)
        self.half.apply(slices, drawn(slices, TOKEN))
        self.pool.check()
        return slices

    def spans(self, budget: int = 64) -> list[tuple[str, int, int]]:
        return [(piece.sequence_id, piece.start, piece.end) for piece in self.step(budget)]

    def warm(self, num_prompt_tokens: int) -> None:
        """Leaves the blocks of a prompt in the cache, and nothing else."""
        self.assign("warm", num_prompt_tokens, max_new_tokens=1)
        self.step()
        self.outbox.tokens.clear()

    def finished(self, handoff_id: str) -> None:
        """Its one write has ended, and the target has taken over."""
        self.half.on_written(handoff_id, 0, MoveOutcome(None), 0.0)
        self.half.on_finished(handoff_id, None, 0.0)

    def counts(self) -> dict[BlockState, int]:
        return {state: count for state, count in self.pool.blocks.counts().items() if count}

    def cached_tokens(self) -> dict[str, int]:
        return {event.handoff_id: event.cached_tokens for event in self.outbox.tokens}


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.pool.check()


def test_finished_prompt_leaves_its_full_blocks_cached(rig: Rig) -> None:
    rig.warm(10)
    assert rig.counts() == {BlockState.CACHED: 2, BlockState.FREE: 14}


def test_cached_blocks_are_not_computed_and_the_first_token_says_so(rig: Rig) -> None:
    rig.warm(10)
    rig.assign("h", 14)
    assert rig.half.num_pending_tokens == 14
    assert rig.spans() == [("h", 8, 14)]
    assert rig.cached_tokens() == {"h": 8}
    assert (rig.half.prefix_stats.num_query_tokens, rig.half.prefix_stats.num_hit_tokens) == (24, 8)


@pytest.mark.parametrize(("num_prompt_tokens", "num_found"), [(12, 8), (13, 12), (9, 8), (8, 4), (4, 0), (1, 0)])
def test_at_least_one_token_is_computed(rig: Rig, num_prompt_tokens: int, num_found: int) -> None:
    rig.warm(12)
    rig.assign("h", num_prompt_tokens)
    assert rig.spans() == [("h", num_found, num_prompt_tokens)]


def test_last_block_computed_again_is_not_kept_twice(rig: Rig) -> None:
    rig.warm(8)
    rig.assign("h", 8, max_new_tokens=1)
    rig.step()
    assert rig.counts() == {BlockState.CACHED: 2, BlockState.FREE: 14}


def test_chunks_of_an_older_prompt_are_taken_over_as_they_are_computed(rig: Rig) -> None:
    rig.assign("a", 17)
    rig.assign("b", 18)
    assert rig.spans(10) == [("a", 0, 10)]
    assert rig.spans(10) == [("a", 10, 17), ("b", 8, 11)]
    assert rig.spans(10) == [("b", 16, 18)]
    assert rig.cached_tokens() == {"a": 0, "b": 8 + 5}


def test_failed_step_publishes_nothing(rig: Rig) -> None:
    rig.assign("a", 9)
    rig.half.fail(rig.half.plan(64), HandoffError("the engine failed"))
    rig.assign("b", 9)
    assert rig.spans() == [("b", 0, 9)]


def test_block_may_be_read_by_several_handoffs_at_once(rig: Rig) -> None:
    for name in ("a", "b"):
        rig.assign(name, 9)
        rig.step()
        rig.half.on_begun(name, Reservation(0, REMOTE[:3], BLOCK_TOKENS))
    assert rig.counts() == {BlockState.LEASED: 4, BlockState.FREE: 12}  # two are shared
    rig.finished("a")
    assert rig.counts() == {BlockState.LEASED: 3, BlockState.FREE: 13}
    rig.finished("b")
    assert rig.counts() == {BlockState.CACHED: 2, BlockState.FREE: 14}


def test_abandoned_write_quarantines_shared_blocks_and_others_go_on_reading_them(rig: Rig) -> None:
    rig.assign("a", 10)
    rig.step(8)
    rig.half.on_begun("a", Reservation(0, REMOTE[:3], BLOCK_TOKENS))
    rig.half.cancel("a")
    assert rig.counts() == {BlockState.QUARANTINED: 2, BlockState.RUNNING: 1, BlockState.FREE: 13}
    rig.assign("b", 10, max_new_tokens=1)
    assert rig.spans() == [("b", 8, 10)]
    assert rig.counts()[BlockState.QUARANTINED] == 2
    rig.half.on_written("a", 0, MoveOutcome(None), 0.0)
    assert rig.counts() == {BlockState.CACHED: 2, BlockState.FREE: 14}


@pytest.mark.parametrize("num_present", [1, 2, 3])
def test_blocks_that_the_target_has_are_not_written(rig: Rig, num_present: int) -> None:
    rig.assign("h", 10)
    (piece,) = rig.step()
    rig.half.on_begun("h", Reservation(num_present, REMOTE[num_present:3], BLOCK_TOKENS))
    local = list(piece.block_ids)[num_present:]
    writes = [("write", "h", 0, local, REMOTE[num_present:3])] if local else []
    assert rig.port.take()[1:] == [*writes, ("finish", "h", (TOKEN,), 3 - num_present)]
    assert rig.half.stats.num_bytes_saved == num_present * rig.pool.layout.block_bytes
    assert rig.half.stats.num_bytes == (3 - num_present) * rig.pool.layout.block_bytes


def test_target_that_has_more_than_is_computed_is_written_nothing_until_then(rig: Rig) -> None:
    rig.assign("h", 14)
    rig.step(5)
    rig.half.on_begun("h", Reservation(2, REMOTE[:2], BLOCK_TOKENS))
    rig.step(5)
    assert [order[0] for order in rig.port.take()] == ["begin"]
    rig.step(3)
    ((kind, *_, remote),) = rig.port.take()
    assert (kind, remote) == ("write", REMOTE[:1])


def test_target_with_another_number_of_blocks_in_all_gives_the_work_back(rig: Rig) -> None:
    rig.assign("h", 10)
    rig.step()
    rig.half.on_begun("h", Reservation(2, REMOTE[:2], BLOCK_TOKENS))
    assert "reserved 4 blocks of 4 tokens where 3 were asked for" in rig.outbox.returns[0].message


def test_full_pool_evicts_what_nobody_uses(rig: Rig) -> None:
    rig.warm(60)
    assert rig.counts() == {BlockState.CACHED: 15, BlockState.FREE: 1}
    rig.assign("h", 64, max_new_tokens=1)
    assert rig.spans() == [("h", 60, 64)]
    rig.half.assign(ROUTER, assignment("other", 1))
    rig.step()
    assert rig.counts() == {BlockState.RUNNING: 1, BlockState.CACHED: 15}
