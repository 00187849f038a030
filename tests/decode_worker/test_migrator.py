"""A running sequence on its way to another worker, state by state; the target is played by the test."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from core.clock import ManualClock
from core.errors import BatonError, HandoffError, InternalError, UnknownOutcomeError
from core.ids import WorkerEndpoint, WorkerId
from core.request import MIGRATION_HEADROOM_TOKENS
from decode_worker.half import DecodeHalf
from decode_worker.migrator import MAX_STANDING_STILL, MAX_UNDER_WAY
from engine.kv.accounting import BlockState
from engine.kv.block_table import BlockTable
from engine.plan import SequenceSlice
from kvtransfer.move import MoveOutcome
from kvtransfer.port import Reservation
from kvtransfer.sender import RENEWAL_S, WRITE_TIMEOUT_S
from tests.builders import DECODE, PREFILL, STOP_TOKEN, ListOutbox, ListPort, assignment, drawn, small_pool

ROUTER = "router-1"
TARGET = WorkerEndpoint(WorkerId("decode-1", 1), "127.0.0.1:3")
OTHER = WorkerEndpoint(WorkerId("decode-2", 1), "127.0.0.1:4")
FIRST, TOKEN = 7, 5
BLOCK_TOKENS = 4
NUM_BLOCKS = 64
LONG = 400  # tokens of an answer that does not end in a test
DONE = MoveOutcome(None)
BROKEN = MoveOutcome(HandoffError("the link broke"))
RUNNING, LEASED, FREE, QUARANTINED = (
    BlockState.RUNNING,
    BlockState.LEASED,
    BlockState.FREE,
    BlockState.QUARANTINED,
)


class Rig:
    """A decode worker that is the source of migrations."""

    def __init__(self, num_blocks: int = NUM_BLOCKS, max_num_seqs: int = 8, stop_and_copy_bytes: int = 0) -> None:
        self.pool = small_pool(num_blocks, BLOCK_TOKENS)
        self.port, self.outbox, self.clock = ListPort(TARGET, OTHER), ListOutbox(), ManualClock()
        self.half = DecodeHalf(
            self.pool, self.port, self.outbox, self.clock, max_num_seqs, stop_and_copy_bytes=stop_and_copy_bytes
        )

    def run(self, name: str = "h", num_prompt_tokens: int = 9, max_new_tokens: int = LONG) -> None:
        """A sequence that has got its first token from a prefill worker."""
        answers: list[Reservation | BatonError] = []
        self.half.assign(ROUTER, assignment(name, num_prompt_tokens, max_new_tokens))
        self.half.receiver.begin(name, PREFILL.worker, None, answers.append)
        self.half.admit()
        (reserved,) = answers
        assert isinstance(reserved, Reservation)
        num_blocks = len(reserved.block_ids)
        self.half.receiver.commit(name, PREFILL.worker, (FIRST,), num_blocks, lambda _: None)

    def migrate(self, name: str = "h", target: WorkerEndpoint = TARGET) -> str:
        """Orders it; returns the new attempt's id."""
        self.half.migrate(ROUTER, name, f"{name}+", target)
        return f"{name}+"

    def returned_codes(self, code: str) -> list[str]:
        """Whose work has come back with a code."""
        return [work.handoff_id for work in self.outbox.returns if work.code == code]

    def step(self, token: int = TOKEN) -> list[str]:
        """Who was computed."""
        return [piece.sequence_id for piece in self.slices(token)]

    def slices(self, token: int = TOKEN) -> list[SequenceSlice]:
        self.half.admit()
        slices = self.half.plan()
        self.half.apply(slices, drawn(slices, token))
        self.pool.check()
        return slices

    def begun(self, new_id: str = "h+", num_present: int = 0) -> None:
        """The target answers with as many blocks as were asked for."""
        num_tokens = self.half.migrator._migrations[new_id].handoff.num_tokens
        num_blocks = -(-num_tokens // BLOCK_TOKENS)
        remote = list(range(100 + num_present, 100 + num_blocks))
        self.half.migrator.on_begun(new_id, Reservation(num_present, remote, BLOCK_TOKENS))

    def written(self, new_id: str = "h+", outcome: MoveOutcome = DONE) -> None:
        """The oldest write ends."""
        write_id = min(self.half.migrator._migrations[new_id].handoff.open_writes)
        self.half.migrator.on_written(new_id, write_id, outcome, self.clock.now_s())

    def finished(self, error: BatonError | None = None, new_id: str = "h+") -> None:
        """All writes end, then the commit is answered."""
        while self.half.migrator._migrations[new_id].handoff.open_writes:
            self.written(new_id)
        self.half.migrator.on_finished(new_id, error, self.clock.now_s())
        self.pool.check()

    def to_opening(self) -> None:
        self.run()
        self.migrate()
        self.step()

    def to_open(self) -> None:
        """Two of three blocks are being written."""
        self.to_opening()
        self.begun()
        self.step()

    def to_committing(self) -> None:
        """The last block, not full, is being written and the commit ordered."""
        self.to_open()
        self.written()
        self.step()

    def returned(self) -> list[tuple[str, str]]:
        returns, self.outbox.returns = self.outbox.returns, []
        return [(work.handoff_id, work.code) for work in returns]

    def counts(self) -> dict[BlockState, int]:
        return {state: count for state, count in self.pool.blocks.counts().items() if count}

    def orders(self) -> list[object]:
        return [order[0] for order in self.port.take()]

    @property
    def is_free(self) -> bool:
        return self.pool.blocks.num_free == self.pool.num_blocks and self.half.is_idle


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.pool.check()


STATES = ["to_opening", "to_open", "to_committing"]


# --- the way there


def test_sequence_generates_while_its_full_blocks_are_copied_and_stops_for_the_rest(rig: Rig) -> None:
    rig.run(num_prompt_tokens=9)
    rig.migrate()
    assert rig.step() == ["h"]
    num_asked = 10 + MIGRATION_HEADROOM_TOKENS  # nine of the prompt, and the first token's
    assert rig.port.take() == [("begin", "h+", TARGET, num_asked)]
    rig.begun()
    assert rig.step() == ["h"]
    (write,) = rig.port.take()
    assert write[:3] == ("write", "h+", 0)
    assert len(write[3]) == 2  # type: ignore[arg-type]
    assert write[4] == [100, 101]
    assert rig.counts() == {LEASED: 2, RUNNING: 1, FREE: NUM_BLOCKS - 3}
    rig.written()
    assert rig.step() == []
    tail, commit = rig.port.take()
    assert (len(tail[3]), tail[4]) == (1, [102])  # type: ignore[arg-type]
    assert commit == ("finish", "h+", (FIRST, TOKEN, TOKEN), 3)


def test_what_fills_up_meanwhile_is_copied_before_it_stops(rig: Rig) -> None:
    rig.to_open()
    for _ in range(6):
        assert rig.step() == ["h"]
    assert rig.orders() == ["begin", "write"]
    rig.written()
    assert rig.step() == ["h"]  # two more blocks have filled up
    assert [order[4] for order in rig.port.take()] == [[102, 103]]  # type: ignore[index]
    rig.written()
    assert rig.step() == []
    assert rig.orders() == ["write", "finish"]


def test_blocks_that_the_target_has_are_not_sent(rig: Rig) -> None:
    rig.to_opening()
    rig.begun(num_present=2)
    assert rig.step() == []  # nothing full is missing there
    _begin, tail, commit = rig.port.take()
    assert tail[4] == [102]
    assert commit == ("finish", "h+", (FIRST, TOKEN), 1)


def test_acknowledged_sequence_has_left_after_its_last_token(rig: Rig) -> None:
    rig.to_committing()
    num_tokens = len(rig.outbox.tokens)
    rig.clock.advance(0.25)
    rig.finished()
    assert rig.returned() == [("h", "migrated")]
    assert len(rig.outbox.tokens) == num_tokens
    assert rig.is_free
    stats = rig.half.migrator.stats
    assert (stats.num_sent, stats.num_failed, stats.pause_s, stats.longest_pause_s) == (1, 0, 0.25, 0.25)
    assert rig.half.migrator.num_open == 0
    assert rig.step() == []


def test_sequence_near_its_end_asks_for_no_more_than_it_can_use(rig: Rig) -> None:
    rig.run(num_prompt_tokens=9, max_new_tokens=8)
    rig.migrate()
    rig.step()
    assert rig.port.take() == [("begin", "h+", TARGET, 17)]


def test_headroom_that_is_used_up_stops_the_sequence_with_writes_under_way(rig: Rig) -> None:
    rig.to_open()
    for _ in range(MIGRATION_HEADROOM_TOKENS):
        assert rig.step() == ["h"]
    assert rig.step() == []
    assert rig.orders() == ["begin", "write", "write", "finish"]
    rig.finished()
    assert rig.returned() == [("h", "migrated")]
    assert rig.is_free


def test_sequence_that_outgrows_its_room_before_the_target_answers_stays(rig: Rig) -> None:
    rig.to_opening()
    for _ in range(MIGRATION_HEADROOM_TOKENS + BLOCK_TOKENS):
        rig.step()
    rig.begun()
    assert rig.step() == ["h"]
    assert rig.returned() == [("h+", "outgrown")]
    assert rig.orders() == ["begin", "abort"]


def test_few_are_under_way_and_fewer_stand_still_at_a_time() -> None:
    rig = Rig(num_blocks=256, max_num_seqs=32)
    names = [f"h{i}" for i in range(MAX_UNDER_WAY + 2)]
    for name in names:
        rig.run(name)
        rig.migrate(name)
    rig.step()
    assert rig.orders() == ["begin"] * MAX_UNDER_WAY
    assert rig.half.migrator.num_open == len(names)
    for name in names[:MAX_UNDER_WAY]:
        rig.begun(f"{name}+")
    rig.step()
    for name in names[:MAX_UNDER_WAY]:
        rig.written(f"{name}+")
    assert rig.step() == names[MAX_STANDING_STILL:]
    assert rig.orders().count("finish") == MAX_STANDING_STILL
    rig.finished(new_id=f"{names[0]}+")
    third = names[MAX_STANDING_STILL]
    assert third in rig.step()  # a block of it has filled up meanwhile
    assert rig.orders().count("begin") == 1
    rig.written(f"{third}+")
    assert third not in rig.step()
    assert rig.orders().count("finish") == 1


def test_sequence_with_little_to_copy_stands_still_at_once() -> None:
    rig = Rig(stop_and_copy_bytes=2 * small_pool(1, BLOCK_TOKENS).block_bytes)
    rig.run("short", num_prompt_tokens=5)
    rig.run("long", num_prompt_tokens=20)
    rig.migrate("short")
    rig.migrate("long")
    rig.step()
    rig.begun("short+")
    rig.begun("long+")
    assert rig.step() == ["long"]
    assert rig.orders().count("finish") == 1
    rig.written("long+")
    assert rig.step() == []


# --- it stays


def test_refused_begin_leaves_the_sequence_where_it_is(rig: Rig) -> None:
    rig.to_opening()
    rig.half.migrator.on_begin_refused("h+", HandoffError("no room"))
    assert rig.returned() == [("h+", "handoff_failed")]
    assert rig.orders() == ["begin", "abort"]
    assert rig.step() == ["h"]
    rig.half.migrator.on_begin_refused("h+", HandoffError("again"))
    rig.half.migrator.on_begun("h+", Reservation(0, [1], BLOCK_TOKENS))  # the first answer was lost, this one late
    assert rig.returned() == []
    assert rig.half.migrator.stats.num_failed == 1


def test_target_that_reserves_something_else_is_told_to_let_go(rig: Rig) -> None:
    rig.to_opening()
    rig.half.migrator.on_begun("h+", Reservation(0, [1, 2], BLOCK_TOKENS))
    assert rig.returned() == [("h+", "handoff_failed")]
    assert rig.orders() == ["begin", "abort"]
    assert rig.step() == ["h"]


def test_failed_write_leaves_the_sequence_here_and_its_blocks_running(rig: Rig) -> None:
    rig.to_open()
    rig.written(outcome=BROKEN)
    assert rig.returned() == [("h+", "handoff_failed")]
    assert rig.orders() == ["begin", "write", "abort"]
    assert rig.counts() == {RUNNING: 3, FREE: NUM_BLOCKS - 3}
    assert rig.step() == ["h"]
    rig.migrate(target=OTHER)
    rig.step()
    assert rig.port.take()[0][:3] == ("begin", "h+", OTHER)


def test_refused_commit_lets_the_sequence_go_on_at_the_next_step_with_no_token_lost(rig: Rig) -> None:
    rig.to_committing()
    rig.clock.advance(0.5)
    rig.finished(HandoffError("not wanted here"))
    assert rig.returned() == [("h+", "handoff_failed")]
    assert rig.orders()[-1] == "abort"
    assert rig.counts().get(LEASED) is None
    (piece,) = rig.slices()
    assert (piece.start, list(piece.token_ids)) == (11, [TOKEN])
    assert [event.position for event in rig.outbox.tokens] == [1, 2, 3]
    assert (rig.half.migrator.stats.pause_s, rig.half.migrator.stats.num_sent) == (0.5, 0)


def test_write_that_fails_behind_the_commit_is_heard_with_its_answer(rig: Rig) -> None:
    rig.to_committing()
    rig.written(outcome=BROKEN)
    assert rig.step() == []
    assert rig.returned() == []
    rig.finished(HandoffError("the link broke"))
    assert rig.returned() == [("h+", "handoff_failed")]
    assert rig.step() == ["h"]


def test_lost_lease_leaves_the_sequence_here_but_for_one_that_is_committing(rig: Rig) -> None:
    rig.to_open()
    rig.half.migrator.on_leases_lost(["h+", "unknown"])
    assert rig.returned() == [("h+", "lease_lost")]
    assert rig.step() == ["h"]
    assert rig.counts()[LEASED] == 2  # a write still reads them
    assert "abort" not in rig.orders()
    rig.written()
    assert rig.orders() == ["abort"]
    assert rig.counts().get(LEASED) is None


def test_lost_lease_of_a_committing_one_is_left_to_the_commit_s_answer(rig: Rig) -> None:
    rig.to_committing()
    rig.half.migrator.on_leases_lost(["h+"])
    assert rig.returned() == []
    assert rig.step() == []


def test_dead_target_leaves_the_sequence_here(rig: Rig) -> None:
    rig.to_opening()
    rig.run("queued")
    rig.half.migrate(ROUTER, "queued", "queued+", TARGET)
    rig.half.worker_gone(OTHER.worker)
    assert rig.returned() == []
    rig.half.worker_gone(TARGET.worker)
    assert rig.returned() == [("h+", "target_lost"), ("queued+", "target_lost")]
    assert rig.step() == ["h", "queued"]


def test_target_that_dies_behind_the_commit_has_its_answer_waited_for(rig: Rig) -> None:
    rig.to_committing()
    rig.half.worker_gone(TARGET.worker)
    assert rig.returned() == []
    rig.finished(UnknownOutcomeError("the connection broke"))
    assert rig.returned() == [("h", "migration_unknown")]


def test_stalled_write_leaves_the_sequence_here(rig: Rig) -> None:
    rig.to_open()
    rig.clock.advance(WRITE_TIMEOUT_S + 1)
    rig.half.expire()
    assert rig.returned() == [("h+", "handoff_stalled")]
    assert rig.step() == ["h"]
    assert rig.counts()[LEASED] == 2
    assert rig.half.migrator.num_open == 0
    rig.half.migrate(ROUTER, "h", "h++", OTHER)  # not before the write has ended
    assert rig.returned() == [("h++", "already_migrating")]
    rig.written()
    rig.half.migrate(ROUTER, "h", "h++", OTHER)
    assert rig.returned() == []


@pytest.mark.parametrize("state", STATES[:2])
def test_cancelled_migration_s_target_hears_and_the_sequence_stays(rig: Rig, state: str) -> None:
    getattr(rig, state)()
    rig.half.cancel("h+")
    assert rig.step() == ["h"]
    if state == "to_open":
        rig.written()
    assert rig.orders()[-1] == "abort"
    assert rig.returned() == []
    assert rig.half.migrator.is_idle


def test_migration_that_is_committing_cannot_be_cancelled(rig: Rig) -> None:
    rig.to_committing()
    rig.half.cancel("h+")
    assert rig.step() == []
    rig.finished()
    assert rig.returned() == [("h", "migrated")]


# --- nobody knows


def test_unknown_outcome_ends_the_sequence_here_for_the_target_may_run_it(rig: Rig) -> None:
    rig.to_committing()
    rig.finished(UnknownOutcomeError("no answer"))
    assert rig.returned() == [("h", "migration_unknown")]
    assert rig.orders()[-1] == "abort"
    assert rig.is_free
    assert rig.half.migrator.stats.num_failed == 1


def test_commit_that_is_not_answered_in_time_ends_the_sequence_and_quarantines_what_is_read(rig: Rig) -> None:
    rig.to_committing()
    rig.clock.advance(WRITE_TIMEOUT_S + 1)
    rig.half.expire()
    assert rig.returned() == [("h", "migration_unknown")]
    assert rig.counts() == {QUARANTINED: 3, FREE: NUM_BLOCKS - 3}
    rig.finished(UnknownOutcomeError("no answer"))
    assert rig.returned() == []
    assert rig.is_free


# --- the sequence ends first


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("end", ["cancel", "drop_router"])
def test_sequence_that_is_cancelled_leaves_nothing_behind(rig: Rig, state: str, end: str) -> None:
    getattr(rig, state)()
    num_leased = rig.counts().get(LEASED, 0)
    getattr(rig.half, end)("h" if end == "cancel" else ROUTER)
    assert rig.counts().get(QUARANTINED, 0) == num_leased
    settle(rig, state)
    assert rig.orders()[-1] == "abort"
    assert rig.returned() == [("h+", "not_running")]
    assert rig.is_free


def settle(rig: Rig, state: str) -> None:
    """What was under way ends."""
    if state == "to_open":
        rig.written()
    if state == "to_committing":
        rig.finished(HandoffError("not wanted here"))


@pytest.mark.parametrize("state", STATES[:2])
def test_answer_that_ends_first_ends_the_migration(rig: Rig, state: str) -> None:
    getattr(rig, state)()
    assert rig.step(STOP_TOKEN) == ["h"]
    assert rig.returned() == [("h+", "not_running")]
    settle(rig, state)
    assert rig.orders()[-1] == "abort"
    assert rig.is_free
    assert rig.half.migrator.stats.num_failed == 0


def test_cancelled_while_committing_and_taken_over_all_the_same_frees_everything(rig: Rig) -> None:
    rig.to_committing()
    rig.half.cancel("h")
    rig.finished()
    assert rig.returned() == [("h+", "not_running")]
    assert rig.is_free


@pytest.mark.parametrize("state", STATES[:2])
def test_failed_step_ends_sequence_and_migration(rig: Rig, state: str) -> None:
    getattr(rig, state)()
    rig.half.fail(rig.half.plan(), InternalError("out of memory"))
    assert sorted(rig.returned()) == [("h", "internal_error"), ("h+", "not_running")]
    settle(rig, state)
    assert rig.is_free


def test_preempted_sequence_s_blocks_wait_for_the_write_that_reads_them() -> None:
    rig = Rig(num_blocks=8)
    rig.run("old", num_prompt_tokens=14)
    rig.run("h", num_prompt_tokens=9)
    rig.migrate()
    rig.step()
    rig.begun()
    rig.step()
    while not (returned := rig.returned()):
        assert rig.step()
    assert sorted(returned) == [("h", "preempted"), ("h+", "not_running")]
    assert rig.counts()[QUARANTINED] == 2
    rig.written()
    assert rig.step() == ["old"]
    assert rig.counts().get(QUARANTINED) is None


def test_sequences_whose_blocks_are_being_read_are_not_preempted_in_vain() -> None:
    rig = Rig(num_blocks=16)
    for name in ("a", "b", "c", "d"):
        rig.run(name, num_prompt_tokens=9)
    for name in ("b", "c", "d"):
        rig.migrate(name)
    rig.step()
    for name in ("b", "c", "d"):
        rig.begun(f"{name}+")
    while not rig.returned_codes("preempted"):
        rig.step()
    assert rig.returned_codes("preempted") == ["a"]


def test_sequence_that_stands_still_is_not_preempted() -> None:
    rig = Rig(num_blocks=8)
    rig.run("old", num_prompt_tokens=14)
    rig.to_committing()
    while not (returned := rig.returned()):
        assert "h" not in rig.step()
    assert returned == [("old", "preempted")]
    rig.finished()
    assert rig.returned() == [("h", "migrated")]
    assert rig.is_free


# --- orders


def test_order_for_what_is_not_running_here_is_given_back_and_its_target_told(rig: Rig) -> None:
    rig.half.assign(ROUTER, assignment("announced"))
    rig.run("another router's")
    rig.half.migrate("router-2", "another router's", "a+", TARGET)
    rig.migrate("announced")
    rig.migrate("unknown")
    assert rig.returned() == [(name, "not_running") for name in ("a+", "announced+", "unknown+")]
    assert rig.port.take() == [("abort", name) for name in ("a+", "announced+", "unknown+")]


def test_migrating_to_where_it_is_changes_nothing(rig: Rig) -> None:
    rig.run()
    rig.migrate(target=DECODE)
    assert rig.returned() == [("h+", "not_running")]
    assert rig.port.take() == []
    assert rig.step() == ["h"]


def test_second_order_for_one_sequence_is_given_back_and_the_first_goes_on(rig: Rig) -> None:
    rig.to_opening()
    rig.port.take()
    rig.half.migrate(ROUTER, "h", "h+", TARGET)  # heard twice
    assert rig.returned() == []
    rig.half.migrate(ROUTER, "h", "h++", OTHER)
    assert rig.returned() == [("h++", "already_migrating")]
    assert rig.port.take() == [("abort", "h++")]
    rig.begun()
    rig.step()
    assert rig.orders() == ["write"]


def test_leases_are_renewed_while_the_target_keeps_blocks(rig: Rig) -> None:
    rig.to_open()
    rig.run("queued")
    rig.half.migrate(ROUTER, "queued", "queued+", TARGET)
    rig.port.take()
    rig.half.renew_leases()
    rig.clock.advance(RENEWAL_S)
    rig.half.renew_leases()
    rig.half.renew_leases()
    assert rig.port.take() == [("renew", TARGET, ["h+"])]


# --- prompts computed here


@pytest.mark.parametrize("end", ["cancel", "drop_router"])
def test_prompts_computed_here_wait_for_a_place_in_order_and_can_be_cancelled(end: str) -> None:
    rig = Rig(max_num_seqs=1)
    for name in ("a", "b", "c"):
        take_over(rig, name)
    assert rig.step() == ["a"]
    assert (rig.half.num_running, rig.half.num_incoming) == (1, 2)
    rig.half.cancel("b")
    assert rig.step(STOP_TOKEN) == ["a"]
    assert rig.step() == ["c"]
    getattr(rig.half, end)("c" if end == "cancel" else ROUTER)
    assert rig.returned() == []
    assert rig.is_free


def test_prompts_computed_here_go_before_handoffs_that_wait_for_their_blocks() -> None:
    """Else neither could go on: the one waits for blocks that the other holds."""
    rig = Rig(num_blocks=8)
    rig.half.assign(ROUTER, assignment("large", 30))
    rig.half.receiver.begin("large", PREFILL.worker, None, lambda _: None)
    take_over(rig, "here")
    assert rig.step() == ["here"]
    assert rig.step(STOP_TOKEN) == ["here"]
    rig.half.admit()
    assert rig.counts() == {LEASED: 8}


def test_prompt_that_waits_for_a_place_is_given_back_before_those_that_run() -> None:
    rig = Rig(num_blocks=8, max_num_seqs=1)
    take_over(rig, "old", 14)
    take_over(rig, "young", 14)
    while not (returned := rig.returned()):
        assert rig.step() == ["old"]
    assert returned == [("young", "preempted")]
    assert rig.step() == ["old"]


def test_prompt_that_waits_for_a_place_can_migrate_and_does_not_join_while_it_stands_still() -> None:
    rig = Rig(max_num_seqs=1)
    take_over(rig, "running")
    take_over(rig, "h", 9)
    rig.migrate()
    rig.step()
    rig.begun()
    rig.step()
    rig.written()
    rig.step(STOP_TOKEN)
    assert rig.step() == []
    rig.finished()
    assert rig.returned() == [("h", "migrated")]
    assert rig.is_free


def test_word_of_a_stranger_ends_no_prompt_computed_here(rig: Rig) -> None:
    take_over(rig, "h")
    rig.half.receiver.source_ended("h", OTHER.worker)
    assert rig.step() == ["h"]


def test_prompt_computed_here_runs_from_the_next_step_on_in_its_own_blocks(rig: Rig) -> None:
    block_ids = take_over(rig, "h")
    (piece,) = rig.slices()
    assert (piece.start, list(piece.token_ids), list(piece.block_ids)) == (10, [FIRST], block_ids)
    assert [(event.position, event.token_id) for event in rig.outbox.tokens] == [(1, TOKEN)]
    rig.step(STOP_TOKEN)
    assert rig.is_free


def take_over(rig: Rig, name: str, num_prompt_tokens: int = 10) -> list[int]:
    """As a prefill half does; returns the blocks."""
    work = replace(assignment(name, num_prompt_tokens, LONG), prefill=DECODE)
    table = BlockTable(rig.pool, "", work.prompt)
    assert table.try_reserve(-(-num_prompt_tokens // BLOCK_TOKENS), max_shared=0)
    rig.half.take_over(ROUTER, work, table, FIRST)
    return table.block_ids
