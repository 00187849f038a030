"""Pushes of prefixes as pure state: what is written, and until when blocks are held."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from core.blocks import BlockName
from core.errors import PeerLostError
from core.ids import WorkerId
from engine.kv.accounting import BlockState
from engine.kv.block_table import BlockTable
from engine.kv.pool import BlockPool
from kvtransfer.move import Digest, Direction, Move, MoveOutcome
from kvtransfer.prefix_port import FetchEnd
from tests.builders import small_pool
from worker import prefix_exporter
from worker.mailbox import Mailbox
from worker.prefix_exporter import PrefixExporter, PushOrder
from worker.ways import Way

BLOCK_TOKENS = 4
TARGET = WorkerId("prefill-0", 1)
REMOTE = (70, 30, 50, 10, 20)


class ListMoves:
    """Keeps moves until the test ends them."""

    def __init__(self) -> None:
        self.moves: list[tuple[Move, Callable[[MoveOutcome], None]]] = []

    def move(self, move: Move, on_moved: Callable[[MoveOutcome], None]) -> None:
        self.moves.append((move, on_moved))


@dataclass
class Rig:
    pool: BlockPool = field(default_factory=lambda: small_pool(12, BLOCK_TOKENS, enable_prefix_caching=True))
    moves: ListMoves = field(default_factory=ListMoves)
    mailbox: Mailbox = field(default_factory=Mailbox)
    ends: list[FetchEnd] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.exporter = PrefixExporter(self.pool, self.moves, self.mailbox, digest_every=2)

    def warm(self, num_blocks: int, first_token: int = 1, max_shared: int = 99) -> list[BlockName]:
        """Leaves the blocks of a prompt in the cache."""
        table = BlockTable(self.pool, "", range(first_token, first_token + num_blocks * BLOCK_TOKENS))
        assert table.try_reserve(num_blocks, max_shared=max_shared)
        table.publish(num_blocks * BLOCK_TOKENS)
        table.release()
        return list(table.names)

    def push(self, names: list[BlockName], fetch_id: str = "f", num_present: int = 0) -> None:
        remote_ids = REMOTE[: len(names) - num_present]
        self.exporter.push(PushOrder(fetch_id, TARGET, names, remote_ids), self.ends.append)

    def end_move(self, outcome: MoveOutcome | None = None) -> None:
        _, on_moved = self.moves.moves.pop()
        on_moved(outcome or MoveOutcome(None))
        for call in self.mailbox.receive(0.0):
            call()
        self.pool.check()

    def counts(self) -> dict[BlockState, int]:
        return {state: count for state, count in self.pool.blocks.counts().items() if count}


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_leading_blocks_that_are_here_are_written_and_held_until_then(rig: Rig) -> None:
    names = rig.warm(3)
    rig.push([*names, b"elsewhere-------"])
    ((move, _),) = rig.moves.moves
    local = [rig.pool.blocks.find(name) for name in names]
    assert move == Move(TARGET, Direction.WRITE, local, REMOTE[:3], digest_every=2)
    assert rig.counts() == {BlockState.LEASED: 3, BlockState.FREE: 9}
    assert rig.ends == []
    digest = Digest(rank=0, block_id=70, first_head=0, num_heads=1, value=7)
    rig.end_move(MoveOutcome(None, busy_s=0.25, digests=(digest,)))
    assert rig.ends == [FetchEnd(3, write_s=0.25, digests=(digest,))]
    assert rig.counts() == {BlockState.CACHED: 3, BlockState.FREE: 9}


def test_only_what_the_target_has_not_is_written(rig: Rig) -> None:
    names = rig.warm(4)
    rig.push([*names, b"elsewhere-------"], num_present=3)
    ((move, _),) = rig.moves.moves
    assert (move.local_ids, move.remote_ids) == ([rig.pool.blocks.find(names[3])], REMOTE[:1])
    assert rig.counts() == {BlockState.LEASED: 1, BlockState.RUNNING: 3, BlockState.FREE: 8}
    rig.end_move()
    assert rig.ends == [FetchEnd(1)]
    assert rig.counts() == {BlockState.CACHED: 4, BlockState.FREE: 8}


def test_refusal_when_only_what_the_target_has_is_here_holds_nothing(rig: Rig) -> None:
    rig.push([*rig.warm(2), b"elsewhere-------"], num_present=2)
    assert rig.moves.moves == []
    assert [end.num_blocks for end in rig.ends] == [0]
    assert rig.counts() == {BlockState.CACHED: 2, BlockState.FREE: 10}


@pytest.mark.parametrize("is_abandoned", [False, True])
@pytest.mark.parametrize("num_present", [2, 4])
def test_what_was_pushed_is_evicted_from_its_end(rig: Rig, num_present: int, is_abandoned: bool) -> None:
    """A block without those before it is of no use to anybody: no walk along a prompt finds it."""
    names = rig.warm(4)
    rig.push([*names, b"elsewhere-------"], num_present=num_present)
    if num_present < 4:
        if is_abandoned:
            rig.exporter.abandon(TARGET, "f")
        rig.end_move()
    for num_left in (3, 2, 1):
        assert rig.pool.blocks.try_allocate(rig.pool.blocks.counts()[BlockState.FREE] + 1) is not None
        present = [rig.pool.blocks.find(name) is not None for name in names]
        assert present == [True] * num_left + [False] * (4 - num_left)


def test_ancestors_are_not_evicted_while_what_follows_them_is_written(rig: Rig) -> None:
    names = rig.warm(4)
    rig.push(names, num_present=2)
    assert rig.pool.blocks.try_allocate(9) is None
    assert rig.pool.blocks.find_prefix(names) == [rig.pool.blocks.find(name) for name in names]


def test_what_comes_back_from_host_memory_keeps_what_is_before_it() -> None:
    rig = Rig(pool=small_pool(4, BLOCK_TOKENS, enable_prefix_caching=True, num_host_blocks=8))
    names = rig.warm(3)
    rig.warm(3, first_token=100)  # leaves the first block of the first prompt, which was let go before its own
    rig.pool.begin_step()
    rig.push(names, num_present=1)
    ((move, _),) = rig.moves.moves
    assert len(move.local_ids) == 2
    assert rig.pool.blocks.find_prefix(names)[1:] == move.local_ids
    rig.end_move()
    assert len(rig.pool.blocks.find_prefix(names)) == 3


def test_prompt_whose_first_block_is_not_here_is_refused(rig: Rig) -> None:
    rig.push([b"elsewhere-------", *rig.warm(2)])
    assert rig.moves.moves == []
    assert [end.num_blocks for end in rig.ends] == [0]
    assert "is here any more" in rig.ends[0].refusal


def test_write_that_failed_is_a_refusal_with_its_reason(rig: Rig) -> None:
    rig.push(rig.warm(2))
    rig.end_move(MoveOutcome(PeerLostError("the target died")))
    assert rig.ends == [FetchEnd(0, "the target died")]
    assert rig.counts() == {BlockState.CACHED: 2, BlockState.FREE: 10}


def test_blocks_of_an_abandoned_write_are_quarantined_until_it_ends(rig: Rig) -> None:
    rig.push(rig.warm(2))
    for _ in range(2):
        rig.exporter.abandon(TARGET, "f")
    assert rig.counts() == {BlockState.QUARANTINED: 2, BlockState.FREE: 10}
    rig.end_move()
    assert rig.counts() == {BlockState.CACHED: 2, BlockState.FREE: 10}
    rig.exporter.abandon(TARGET, "f")


def test_end_is_answered_when_the_write_has_ended(rig: Rig) -> None:
    over: list[Way | None] = []
    rig.push(rig.warm(2))
    rig.exporter.end(TARGET, "f", over.append)
    rig.exporter.end(TARGET, "f", over.append)
    assert over == []
    rig.end_move()
    assert over == [None, None]


def test_end_says_how_the_write_went_however_late_and_often_it_is_asked_for(rig: Rig) -> None:
    over: list[Way | None] = []
    rig.push(rig.warm(2))
    rig.exporter.end(TARGET, "f", over.append)
    rig.end_move(MoveOutcome(None, transport="nixl"))
    for _ in range(2):
        rig.exporter.end(TARGET, "f", over.append)
    assert over == [Way("nixl", Direction.WRITE)] * 3


@pytest.mark.parametrize("was_pushed", [False, True])
def test_push_that_comes_after_its_end_is_refused(rig: Rig, was_pushed: bool) -> None:
    names, over = rig.warm(2), list[Way | None]()
    if was_pushed:
        rig.push(names)
        rig.end_move()
        rig.ends.clear()
    rig.exporter.end(TARGET, "f", over.append)
    assert over == [None]
    rig.push(names)
    assert rig.moves.moves == []
    assert "given up" in rig.ends[0].refusal


def test_second_push_of_one_id_is_refused_and_the_first_goes_on(rig: Rig) -> None:
    names = rig.warm(2)
    rig.push(names)
    rig.push(names)
    assert len(rig.moves.moves) == len(rig.ends) == 1
    rig.end_move()
    assert [end.num_blocks for end in rig.ends] == [0, 2]


def test_ids_of_other_targets_are_others(rig: Rig) -> None:
    names = rig.warm(2)
    rig.push(names)
    rig.exporter.push(PushOrder("f", WorkerId("prefill-0", 2), names, REMOTE[:2]), rig.ends.append)
    assert len(rig.moves.moves) == 2


def test_ended_pushes_are_remembered_a_bounded_number_of_times(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_exporter, "MAX_TOMBSTONES", 2)
    for fetch_id in "abc":
        rig.exporter.end(TARGET, fetch_id, lambda _: None)
    for fetch_id in "bca":
        rig.push(rig.warm(1), fetch_id)
    assert len(rig.moves.moves) == 1


def test_partition_that_has_most_of_it_gives_it() -> None:
    rig = Rig(pool=small_pool(12, BLOCK_TOKENS, enable_prefix_caching=True, num_partitions=2))
    short = rig.warm(2)
    taken = rig.pool.blocks.try_allocate(4, partition=0)
    assert taken is not None
    long = rig.warm(4, max_shared=0)
    rig.pool.blocks.release(taken)
    assert long[:2] == short
    rig.push(long)
    ((move, _),) = rig.moves.moves
    assert len(move.local_ids) == 4
    assert {rig.pool.blocks.partition_of(block_id) for block_id in move.local_ids} == {1}


@pytest.mark.parametrize(("max_copies", "num_written"), [(8, 3), (1, 2)])
def test_blocks_in_host_memory_come_back_within_the_step_s_budget(max_copies: int, num_written: int) -> None:
    rig = Rig(pool=small_pool(4, BLOCK_TOKENS, enable_prefix_caching=True, num_host_blocks=8))
    assert rig.pool.host is not None
    names = rig.warm(3)
    rig.warm(3, first_token=100)  # takes the free block and those of the end of the first prompt
    rig.pool.host._max_copies = max_copies
    rig.pool.begin_step()
    rig.push(names)
    ((move, _),) = rig.moves.moves
    assert len(move.local_ids) == num_written
    rig.end_move()
    assert set(rig.pool.name_log.snapshot()[1]) >= set(names)


def test_without_room_what_is_in_host_memory_stays_there() -> None:
    rig = Rig(pool=small_pool(4, BLOCK_TOKENS, enable_prefix_caching=True, num_host_blocks=8))
    names = rig.warm(3)
    taken = rig.pool.blocks.try_allocate(3)
    assert taken is not None
    rig.push(names)
    ((move, _),) = rig.moves.moves
    assert len(move.local_ids) == 1
    rig.end_move()
    rig.pool.blocks.release(taken)
