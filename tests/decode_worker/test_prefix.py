"""The token half with a prefix cache."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from core.clock import ManualClock
from core.errors import BatonError
from core.ids import WorkerEndpoint, WorkerId
from decode_worker.half import DecodeHalf
from engine.kv.accounting import BlockState
from engine.kv.pool import BlockPool
from engine.plan import SequenceSlice, StepResult
from kvtransfer.move import MoveOutcome
from kvtransfer.port import Reservation
from tests.builders import PREFILL, ListOutbox, ListPort, assignment, small_pool

ROUTER = "router-1"
BLOCK_TOKENS = 4
DECODE_1 = WorkerEndpoint(WorkerId("decode-1", 1), "127.0.0.1:3")


class Rig:
    """Prompts are 1, 2, 3 ... and answers go on counting: each sequence begins as the shorter ones do."""

    def __init__(self, num_blocks: int = 16, num_host_blocks: int = 0) -> None:
        self.pool: BlockPool = small_pool(
            num_blocks, BLOCK_TOKENS, enable_prefix_caching=True, num_host_blocks=num_host_blocks
        )
        self.half = DecodeHalf(
            self.pool, ListPort(DECODE_1), ListOutbox(), ManualClock(), max_num_seqs=4, stop_and_copy_bytes=0
        )

    def receive(self, handoff_id: str, num_prompt_tokens: int) -> Reservation:
        answers = self.begin(handoff_id, num_prompt_tokens)
        assert len(answers) == 1
        assert isinstance(answers[0], Reservation)
        return answers[0]

    def begin(self, handoff_id: str, num_prompt_tokens: int) -> list[Reservation | BatonError]:
        answers: list[Reservation | BatonError] = []
        work = assignment(handoff_id, num_prompt_tokens, max_new_tokens=100)
        self.half.assign(ROUTER, replace(work, stop_token_ids=frozenset()))
        self.half.receiver.begin(handoff_id, PREFILL.worker, None, answers.append)
        self.half.admit()
        self.pool.check()
        return answers

    def run(self, handoff_id: str, num_prompt_tokens: int) -> Reservation:
        reserved = self.receive(handoff_id, num_prompt_tokens)
        answers: list[BatonError | None] = []
        self.half.receiver.commit(
            handoff_id, PREFILL.worker, (num_prompt_tokens + 1,), len(reserved.block_ids), answers.append
        )
        assert answers == [None]
        return reserved

    def step(self) -> list[SequenceSlice]:
        slices = self.half.plan()
        self.half.apply(slices, StepResult({piece.sequence_id: piece.end + 1 for piece in slices}))
        self.pool.check()
        return slices

    def counts(self) -> dict[BlockState, int]:
        return {state: count for state, count in self.pool.blocks.counts().items() if count}


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.pool.check()


def test_received_blocks_are_found_after_the_commit_only(rig: Rig) -> None:
    rig.receive("a", 10)
    assert rig.receive("b", 10).num_present == 0
    rig.half.receiver.commit("a", PREFILL.worker, (11,), 3, lambda _: None)
    assert rig.receive("c", 10).num_present == 2
    assert rig.counts() == {BlockState.RUNNING: 3, BlockState.LEASED: 4, BlockState.FREE: 9}


def test_abandoned_blocks_are_never_found(rig: Rig) -> None:
    rig.receive("a", 10)
    rig.half.cancel("a")
    rig.half.receiver.source_ended("a", PREFILL.worker)
    assert rig.counts() == {BlockState.FREE: 16}
    assert rig.receive("b", 10).num_present == 0


@pytest.mark.parametrize(("num_prompt_tokens", "num_present"), [(7, 1), (8, 2), (9, 2), (12, 2)])
def test_cached_blocks_are_not_asked_for(rig: Rig, num_prompt_tokens: int, num_present: int) -> None:
    rig.run("a", 10)
    rig.half.cancel("a")
    reserved = rig.run("b", num_prompt_tokens)
    assert (reserved.num_present, reserved.num_blocks) == (num_present, -(-num_prompt_tokens // BLOCK_TOKENS))
    (piece,) = rig.step()
    assert (piece.start, list(piece.token_ids)) == (num_prompt_tokens, [num_prompt_tokens + 1])


def test_two_handoffs_of_one_prompt_end_with_one_copy(rig: Rig) -> None:
    for name in "ab":
        rig.receive(name, 12)
    assert rig.counts() == {BlockState.LEASED: 6, BlockState.FREE: 10}
    for name in "ab":
        rig.half.receiver.commit(name, PREFILL.worker, (13,), 3, lambda _: None)
    assert rig.counts() == {BlockState.RUNNING: 3, BlockState.FREE: 13}
    slices = rig.step()
    assert slices[0].block_ids[:3] == slices[1].block_ids[:3]
    assert slices[0].block_ids[3] != slices[1].block_ids[3]


def test_commit_of_what_the_target_has_anyway_is_refused(rig: Rig) -> None:
    rig.run("a", 10)
    rig.receive("b", 10)
    answers: list[BatonError | None] = []
    rig.half.receiver.commit("b", PREFILL.worker, (11,), 3, answers.append)
    assert "1 blocks expected, 3 came" in str(answers[0])


def test_generated_blocks_are_found_as_soon_as_they_are_full(rig: Rig) -> None:
    rig.run("a", 6)
    for num_final, num_present in ((7, 1), (8, 2), (9, 2), (10, 2), (11, 2), (12, 3)):
        rig.step()
        name = f"after-{num_final}"
        assert rig.receive(name, 13).num_present == num_present, num_final
        rig.half.receiver.source_ended(name, PREFILL.worker)


def test_ended_sequence_stays_cached_but_for_its_last_token(rig: Rig) -> None:
    rig.run("a", 6)
    rig.step()  # the KV of 7 tokens is final
    rig.half.cancel("a")
    assert rig.counts() == {BlockState.CACHED: 1, BlockState.FREE: 15}


def test_preempted_sequence_finds_its_blocks_again() -> None:
    rig = Rig(num_blocks=5)
    rig.run("old", 8)
    rig.run("young", 8)
    while rig.half.num_running == 2:
        rig.step()
    rig.half.cancel("old")
    assert rig.receive("young-again", 12).num_present >= 2


def test_cancelled_handoff_lets_go_of_present_blocks_when_its_source_has_ended(rig: Rig) -> None:
    rig.run("a", 8)
    rig.half.cancel("a")
    rig.receive("b", 10)
    rig.half.cancel("b")
    assert rig.counts() == {BlockState.RUNNING: 2, BlockState.QUARANTINED: 1, BlockState.FREE: 13}
    rig.half.receiver.source_ended("b", PREFILL.worker)
    assert rig.counts() == {BlockState.CACHED: 2, BlockState.FREE: 14}


def test_shared_blocks_make_room_for_handoffs_that_would_have_to_wait() -> None:
    rig = Rig(num_blocks=8)
    rig.run("a", 20)
    rig.step()  # six blocks
    assert rig.begin("b", 16)[0].num_present == 4  # type: ignore[union-attr]
    assert rig.begin("c", 24)[0].num_blocks == 6  # type: ignore[union-attr]
    assert rig.begin("d", 32) == []


def test_blocks_in_host_memory_need_not_come_from_the_source() -> None:
    rig = Rig(num_blocks=4, num_host_blocks=4)
    rig.run("a", 12)
    rig.half.cancel("a")
    taken = rig.pool.blocks.try_allocate(4)
    assert taken is not None
    rig.pool.blocks.release(taken)
    reserved = rig.receive("b", 13)
    assert (reserved.num_present, len(reserved.block_ids)) == (3, 1)
    assert rig.counts() == {BlockState.RUNNING: 3, BlockState.LEASED: 1}


def test_generated_blocks_that_come_with_a_running_sequence_are_found_under_their_tokens(rig: Rig) -> None:
    """The prompt ends inside the second block; the answer of its source fills that and another one."""
    answers: list[Reservation | BatonError] = []
    rig.half.assign(ROUTER, replace(assignment("a", 6, max_new_tokens=100), stop_token_ids=frozenset()))
    rig.half.receiver.begin("a", PREFILL.worker, 40, answers.append)
    rig.half.admit()
    assert rig.receive("b", 13).num_present == 0
    rig.half.receiver.commit("a", PREFILL.worker, tuple(range(7, 15)), 4, lambda _: None)
    assert rig.receive("c", 13).num_present == 3


def test_what_a_sequence_leaves_behind_when_it_migrates_stays_cached(rig: Rig) -> None:
    rig.run("a", 10)
    rig.half.migrate(ROUTER, "a", "a+", DECODE_1)
    migrator = rig.half.migrator
    rig.step()
    num_blocks = -(-migrator._migrations["a+"].handoff.num_tokens // BLOCK_TOKENS)
    migrator.on_begun("a+", Reservation(0, range(100, 100 + num_blocks), BLOCK_TOKENS))
    rig.step()
    for _ in range(2):
        for write_id in list(migrator._migrations["a+"].handoff.open_writes):
            migrator.on_written("a+", write_id, MoveOutcome(None), 0.0)
        rig.step()
    migrator.on_written("a+", 2, MoveOutcome(None), 0.0)
    migrator.on_finished("a+", None, 0.0)
    assert rig.half.is_idle
    assert rig.counts() == {BlockState.CACHED: 3, BlockState.FREE: 13}
    assert rig.receive("b", 14).num_present == 3
