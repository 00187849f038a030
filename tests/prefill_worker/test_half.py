from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from core.clock import ManualClock
from core.errors import BatonError, CorruptKvError, HandoffError, InternalError, PeerLostError
from core.events import ReturnedWork, TokenEvent, TokenTiming
from core.ids import WorkerEndpoint, WorkerId
from core.logprobs import TokenLogprobs
from core.request import Assignment, FinishReason
from core.sampling import SamplingParams
from engine.kv.accounting import BlockState
from engine.kv.block_table import BlockTable
from engine.kv.pool import BlockPool
from engine.plan import Draw, SequenceSlice, SliceKind
from kvtransfer.move import MoveOutcome
from kvtransfer.port import Reservation
from kvtransfer.sender import RENEWAL_S, WRITE_TIMEOUT_S
from prefill_worker.half import PrefillHalf
from tests.builders import DECODE, PREFILL, STOP_TOKEN, ListOutbox, ListPort, assignment, drawn, keep_here, small_pool

ROUTER = "router-1"
TOKEN = 5
BLOCK_TOKENS = 4
AT_ONCE = TokenTiming(0.0, 0.0)
REMOTE = list(range(100, 120))  # ids a target might give


@dataclass
class Rig:
    pool: BlockPool = field(default_factory=lambda: small_pool(16, BLOCK_TOKENS))
    port: ListPort = field(default_factory=ListPort)
    outbox: ListOutbox = field(default_factory=ListOutbox)
    clock: ManualClock = field(default_factory=ManualClock)

    def __post_init__(self) -> None:
        self.num_steps = 0
        self.half = PrefillHalf(
            self.pool,
            self.port,
            self.outbox,
            self.clock,
            next_step=lambda: self.num_steps + 1,
            take_over=keep_here,
            digest_every=3,
        )

    def assign(self, handoff_id: str, num_prompt_tokens: int, max_new_tokens: int = 8) -> None:
        self.half.assign(ROUTER, assignment(handoff_id, num_prompt_tokens, max_new_tokens))

    def step(self, budget: int, token: int = TOKEN) -> list[SequenceSlice]:
        slices = self.half.plan(budget)
        self.num_steps += 1
        self.half.apply(slices, drawn(slices, token))
        self.pool.blocks.check()
        return slices

    def begun(self, handoff_id: str, num_blocks: int) -> list[int]:
        remote = REMOTE[:num_blocks]
        self.half.on_begun(handoff_id, Reservation(0, remote, BLOCK_TOKENS))
        return remote

    def written(self, handoff_id: str, error: HandoffError | None = None, ended_s: float = 0.0) -> None:
        """The oldest write of a handoff ends after two seconds under way."""
        write_id = min(self.half._prompts[handoff_id].handoff.open_writes)
        num_bytes = 0 if error else 10
        self.half.on_written(handoff_id, write_id, MoveOutcome(error, num_bytes, 1, 2.0), ended_s)

    def finished(self, handoff_id: str, error: BatonError | None = None, acknowledged_s: float = 0.0) -> None:
        """Every write has ended, then the target has answered."""
        while self.half._prompts[handoff_id].handoff.open_writes:
            self.written(handoff_id)
        self.half.on_finished(handoff_id, error, acknowledged_s)

    def to_open(self) -> None:
        """A prompt of three blocks, two of them computed and being written."""
        self.assign("h", 10)
        self.begun_after(8)

    def to_committing(self) -> list[int]:
        """A computed prompt of three blocks whose one write, and the commit after it, are under way."""
        self.assign("h", 10)
        return self.begun_after(64)

    def begun_after(self, budget: int) -> list[int]:
        """Computes so much, then the target is ready; returns the prompt's blocks."""
        block_ids = list(self.step(budget)[0].block_ids)
        self.begun("h", len(block_ids))
        return block_ids

    def counts(self) -> dict[BlockState, int]:
        return {state: count for state, count in self.pool.blocks.counts().items() if count}

    @property
    def is_free(self) -> bool:
        return self.pool.blocks.num_free == self.pool.num_blocks and self.half.is_idle

    def returned(self) -> list[tuple[str, str, bool]]:
        return [(work.handoff_id, work.code, work.retryable) for work in self.outbox.returns]


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.pool.blocks.check()


# --- planning


@pytest.mark.parametrize("budget", [0, -3])
def test_plan_without_budget_starts_nothing(rig: Rig, budget: int) -> None:
    rig.assign("h", 6)
    assert rig.half.plan(budget) == []
    assert rig.port.orders == []
    assert rig.half.num_queued == 1


def test_first_draw_knows_prompt_and_answer_of_earlier_attempts(rig: Rig) -> None:
    params = SamplingParams(repetition_penalty=2.0, min_tokens=4, bad_words=((6, 7),))
    rig.half.assign(ROUTER, replace(assignment("h", 6, first_position=3), sampling=params))
    (piece,) = rig.half.plan(6)
    assert piece.draw is not None
    assert piece.draw.rules is not None
    assert piece.draw.rules.counts is not None
    assert piece.draw.rules.counts.token_ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert piece.draw.rules.counts.counts.tolist() == [0, 0, 0, 1, 1, 1]
    assert piece.draw.rules.masked_ids(piece.draw.position) == {STOP_TOKEN, 7}


def test_logprobs_of_the_first_token_go_with_it(rig: Rig) -> None:
    rig.assign("h", 6)
    slices = rig.half.plan(6)
    logprobs = TokenLogprobs(TOKEN, -1.0, (TOKEN,), (-1.0,))
    rig.half.apply(slices, replace(drawn(slices, TOKEN), logprobs={"h": logprobs}))
    assert [event.logprobs for event in rig.outbox.tokens] == [logprobs]


def test_plan_whole_prompt_fits_is_one_slice_with_a_draw(rig: Rig) -> None:
    work = replace(assignment("h", 6, first_position=3), sampling=SamplingParams(temperature=0.5, seed=8))
    rig.half.assign(ROUTER, work)
    (piece,) = rig.half.plan(6)
    assert (piece.sequence_id, piece.kind, piece.start) == ("h", SliceKind.PROMPT, 0)
    assert tuple(piece.token_ids) == work.prompt
    assert piece.draw == Draw(work.sampling, position=3)
    assert len(piece.block_ids) == 2


def test_plan_long_prompt_is_chunked_and_only_the_last_chunk_draws(rig: Rig) -> None:
    rig.assign("h", 10)
    pieces = [rig.step(4)[0] for _ in range(3)]
    assert [(piece.start, piece.end) for piece in pieces] == [(0, 4), (4, 8), (8, 10)]
    assert [t for piece in pieces for t in piece.token_ids] == list(range(1, 11))
    assert [piece.draw is None for piece in pieces] == [True, True, False]
    assert {tuple(piece.block_ids) for piece in pieces} == {tuple(pieces[0].block_ids)}
    assert rig.step(4) == []


def test_plan_several_prompts_share_a_step_first_come_first_served(rig: Rig) -> None:
    for i, num_tokens in enumerate((3, 4, 9, 2)):
        rig.assign(f"h{i}", num_tokens)
    assert [(p.sequence_id, len(p.token_ids)) for p in rig.step(10)] == [("h0", 3), ("h1", 4), ("h2", 3)]
    assert [(p.sequence_id, len(p.token_ids)) for p in rig.step(10)] == [("h2", 6), ("h3", 2)]
    assert rig.half.num_pending_tokens == 0
    assert [event.handoff_id for event in rig.outbox.tokens] == ["h0", "h1", "h2", "h3"]


def test_plan_pool_is_full_the_next_prompt_waits_and_nobody_overtakes(rig: Rig) -> None:
    rig.assign("big", 40)
    rig.assign("bigger", 48)
    rig.assign("small", 4)
    assert [p.sequence_id for p in rig.step(64)] == ["big"]
    assert rig.step(64) == []
    rig.half.cancel("big")
    assert [p.sequence_id for p in rig.step(64)] == ["bigger", "small"]


def test_pending_tokens_count_queued_and_started_prompts(rig: Rig) -> None:
    rig.assign("a", 10)
    rig.assign("b", 6)
    assert (rig.half.num_queued, rig.half.num_pending_tokens) == (2, 16)
    rig.step(4)
    assert (rig.half.num_queued, rig.half.num_pending_tokens) == (1, 12)


def test_assign_twice_is_taken_once(rig: Rig) -> None:
    rig.assign("h", 6)
    rig.assign("h", 6)
    assert len(rig.step(64)) == 1
    rig.assign("h", 6)
    assert rig.step(64) == []
    rig.half.drop_router(ROUTER)
    assert rig.is_free


# --- handing over


def test_begin_is_sent_with_the_first_chunk_and_not_again(rig: Rig) -> None:
    rig.assign("h", 10)
    assert rig.port.orders == []
    rig.half.plan(4)
    assert rig.port.take() == [("begin", "h", DECODE, None)]
    rig.step(4)
    rig.step(4)
    assert rig.port.take() == []


def test_blocks_are_written_while_later_chunks_are_still_to_be_computed(rig: Rig) -> None:
    """Push overlaps compute; one write at a time, and what becomes ready meanwhile goes out together."""
    rig.assign("h", 18)
    blocks = list(rig.step(6)[0].block_ids)  # tokens [0, 6): one block is full
    remote = rig.begun("h", 5)
    assert rig.port.take()[1:] == [("write", "h", 0, blocks[:1], remote[:1])]
    rig.step(6)
    rig.step(4)
    assert rig.port.take() == []
    assert rig.counts() == {BlockState.LEASED: 1, BlockState.RUNNING: 4, BlockState.FREE: 11}
    rig.written("h")
    assert rig.port.take() == [("write", "h", 1, blocks[1:4], remote[1:4])]
    rig.written("h")
    assert rig.port.take() == []
    rig.half.plan(6)
    assert rig.port.take() == [("write", "h", 2, blocks[4:], remote[4:])]  # partly filled, and not yet computed
    assert [move.final_after_step for move in rig.port.moves] == [None, None, 4]
    assert {(move.skip_tokens, move.digest_every) for move in rig.port.moves} == {(0, 3)}


def test_last_chunk_leaves_with_its_step_and_what_waited_leaves_before_it(rig: Rig) -> None:
    """Of 18 tokens 6 are being written, [4, 12) are final when the last chunk is planned, the rest are not."""
    rig.assign("h", 18)
    blocks = list(rig.step(6)[0].block_ids)
    remote = rig.begun("h", 5)
    rig.step(7)
    rig.port.take()
    rig.half.plan(64)
    assert rig.port.take() == [("write", "h", 1, blocks[1:3], remote[1:3]), ("write", "h", 2, blocks[3:], remote[3:])]
    assert [move.final_after_step for move in rig.port.moves] == [None, None, 3]
    assert rig.counts() == {BlockState.LEASED: 5, BlockState.FREE: 11}


def test_commit_is_ordered_with_the_first_token_whatever_is_still_in_flight(rig: Rig) -> None:
    rig.to_open()
    rig.step(64)
    assert [order[0] for order in rig.port.take()] == ["begin", "write", "write", "finish"]
    rig.written("h")
    rig.written("h")
    assert rig.port.take() == []
    rig.half.on_finished("h", None, 0.0)
    assert rig.is_free


def test_target_is_ready_only_after_the_prompt_everything_goes_in_one_write(rig: Rig) -> None:
    blocks = rig.to_committing()
    writes = [("write", "h", 0, blocks, REMOTE[:3]), ("finish", "h", (TOKEN,), 3)]
    assert rig.port.take() == [("begin", "h", DECODE, None), *writes]
    assert [move.final_after_step for move in rig.port.moves] == [None]
    assert [(e.position, e.token_id, e.finish_reason) for e in rig.outbox.tokens] == [(0, TOKEN, None)]


def test_committed_frees_the_blocks_and_counts(rig: Rig) -> None:
    rig.to_committing()
    rig.clock.advance(9.0)  # until this worker's loop looks; the times are those of the events
    rig.written("h", ended_s=1.5)
    rig.half.on_finished("h", None, 3.0)
    assert rig.is_free
    assert rig.outbox.returns == []
    stats, pair = rig.half.stats, rig.half.pairs[DECODE.worker]
    block_bytes = rig.pool.layout.block_bytes
    assert (stats.num_sent, stats.num_bytes, stats.write_s, stats.exposed_s) == (1, 3 * block_bytes, 2.0, 3.0)
    assert (pair.num_handoffs, pair.num_bytes, pair.num_descriptors, pair.failures) == (1, 10, 1, {})
    assert (pair.busy_s, pair.exposed_s, pair.acknowledge_s) == (2.0, 1.5, 1.5)


def test_writes_that_end_before_the_prompt_is_computed_are_hidden(rig: Rig) -> None:
    rig.to_open()
    rig.clock.advance(5.0)
    rig.step(64)
    rig.written("h", ended_s=1.0)
    rig.written("h", ended_s=4.0)
    rig.half.on_finished("h", None, 7.0)
    pair = rig.half.pairs[DECODE.worker]
    assert (pair.busy_s, pair.exposed_s, pair.acknowledge_s, pair.hidden_fraction) == (4.0, 0.0, 2.0, 1.0)


def test_exposed_time_is_at_most_the_time_under_way(rig: Rig) -> None:
    """The last write may have waited for others."""
    rig.to_committing()
    rig.written("h", ended_s=100.0)
    rig.half.on_finished("h", None, 100.0)
    assert rig.half.pairs[DECODE.worker].exposed_s == 2.0


def test_one_new_token_finishes_here_without_a_handoff(rig: Rig) -> None:
    rig.assign("h", 6, max_new_tokens=1)
    rig.step(64)
    assert rig.outbox.tokens == [TokenEvent("h", 0, TOKEN, FinishReason.LENGTH, timing=AT_ONCE)]
    assert rig.port.orders == []
    assert rig.is_free


def test_first_token_says_how_long_its_prompt_waited_and_was_computed(rig: Rig) -> None:
    rig.clock.advance(100.0)
    rig.half.assign(ROUTER, assignment("h", 10), arrived_s=98.5)  # a step was under way
    rig.clock.advance(0.5)
    rig.step(4)
    rig.clock.advance(0.25)
    rig.step(64)
    (event,) = rig.outbox.tokens
    assert event.timing == TokenTiming(queue_s=2.0, compute_s=0.25)


def test_first_token_is_a_stop_token_aborts_the_handoff(rig: Rig) -> None:
    rig.assign("h", 6)
    rig.step(64, token=STOP_TOKEN)
    assert rig.outbox.tokens == [TokenEvent("h", 0, STOP_TOKEN, FinishReason.STOP, timing=AT_ONCE)]
    assert rig.port.take() == [("begin", "h", DECODE, None), ("abort", "h")]
    assert rig.is_free
    rig.begun("h", 2)  # the answer crosses the abort
    assert rig.port.take() == []


def test_first_token_is_a_stop_token_with_a_write_in_flight_aborts_when_it_has_ended(rig: Rig) -> None:
    rig.assign("h", 6)
    rig.step(4)
    rig.begun("h", 2)
    rig.step(4, token=STOP_TOKEN)
    assert [order[0] for order in rig.port.take()] == ["begin", "write", "write"]
    assert rig.counts()[BlockState.QUARANTINED] == 2
    rig.written("h")
    assert rig.port.take() == []
    rig.clock.advance(WRITE_TIMEOUT_S + 1)
    rig.half.expire()
    rig.half.worker_gone(DECODE.worker)
    rig.written("h", HandoffError("the peer died"))
    assert rig.port.take() == [("abort", "h")]
    assert rig.is_free
    assert rig.outbox.returns == []


# --- what goes wrong


def test_begin_refused_gives_the_work_back(rig: Rig) -> None:
    rig.assign("h", 10)
    rig.step(4)
    rig.half.on_begin_refused("h", HandoffError("no room"))
    assert rig.outbox.returns == [ReturnedWork("h", "handoff_failed", "no room")]
    assert rig.port.take()[1:] == [("abort", "h")]
    assert rig.is_free
    assert rig.step(64) == []


@pytest.mark.parametrize("num_blocks", [0, 2, 4])
def test_target_reserves_another_number_of_blocks_gives_the_work_back(rig: Rig, num_blocks: int) -> None:
    rig.assign("h", 10)
    rig.step(64)
    rig.begun("h", num_blocks)
    assert rig.returned() == [("h", "handoff_failed", True)]
    assert f"{num_blocks} blocks of 4 tokens where 3 were asked for" in rig.outbox.returns[0].message
    assert rig.port.take()[1:] == [("abort", "h")]
    assert rig.is_free


def test_write_fails_gives_the_work_back(rig: Rig) -> None:
    rig.to_open()
    rig.port.take()
    rig.written("h", HandoffError("the link broke"))
    assert rig.outbox.returns == [ReturnedWork("h", "handoff_failed", "the link broke")]
    assert rig.port.take() == [("abort", "h")]
    assert rig.is_free


def test_write_fails_before_the_prompt_is_computed_stops_computing(rig: Rig) -> None:
    rig.assign("h", 10)
    rig.step(4)
    rig.begun("h", 3)
    rig.written("h", HandoffError("the link broke"))
    assert rig.step(64) == []
    assert rig.outbox.tokens == []
    assert rig.is_free


def test_write_stalls_quarantines_and_gives_back_once(rig: Rig) -> None:
    rig.to_open()
    rig.clock.advance(WRITE_TIMEOUT_S)
    rig.half.expire()
    assert rig.outbox.returns == []
    rig.clock.advance(0.1)
    rig.port.take()
    for _ in range(3):
        rig.half.expire()
        rig.clock.advance(WRITE_TIMEOUT_S)
    assert rig.returned() == [("h", "handoff_stalled", True)]
    assert rig.counts() == {BlockState.QUARANTINED: 2, BlockState.RUNNING: 1, BlockState.FREE: 13}
    assert rig.port.take() == []  # the target must not free its blocks: the write may still land
    assert not rig.half.is_idle
    rig.written("h", HandoffError("the peer died"))
    assert rig.port.take() == [("abort", "h")]
    assert rig.returned() == [("h", "handoff_stalled", True)]
    assert rig.is_free


def test_stalled_write_of_an_unfinished_prompt_stops_computing(rig: Rig) -> None:
    rig.assign("h", 10)
    rig.step(4)
    rig.begun("h", 3)
    rig.clock.advance(WRITE_TIMEOUT_S + 1)
    rig.half.expire()
    assert rig.step(64) == []
    assert rig.counts() == {BlockState.QUARANTINED: 1, BlockState.RUNNING: 2, BlockState.FREE: 13}
    rig.written("h")
    assert rig.is_free


def test_finish_stalls_gives_back_once_and_keeps_the_blocks(rig: Rig) -> None:
    rig.to_committing()
    rig.port.take()
    for _ in range(3):
        rig.clock.advance(WRITE_TIMEOUT_S + 1)
        rig.half.expire()
    assert rig.returned() == [("h", "handoff_stalled", True)]
    assert rig.counts() == {BlockState.QUARANTINED: 3, BlockState.FREE: 13}
    rig.finished("h", HandoffError("the peer died"))
    assert rig.returned() == [("h", "handoff_stalled", True)]
    assert rig.is_free


def test_commit_refused_gives_the_work_back_and_tells_the_target(rig: Rig) -> None:
    """The commit may have been lost on its way, and then the target would keep its blocks for ever."""
    rig.to_committing()
    rig.port.take()
    rig.finished("h", HandoffError("no answer"))
    assert rig.outbox.returns == [ReturnedWork("h", "handoff_failed", "no answer")]
    assert rig.port.take() == [("abort", "h")]
    assert rig.is_free
    assert rig.half.stats.num_sent == 0


def test_fail_gives_back_the_step_s_prompts_for_good(rig: Rig) -> None:
    rig.assign("a", 4)
    rig.assign("b", 10)
    rig.assign("later", 4)
    slices = rig.half.plan(8)
    rig.half.fail(slices, InternalError("out of memory"))
    assert rig.outbox.returns == [
        ReturnedWork("a", "internal_error", "out of memory", retryable=False),
        ReturnedWork("b", "internal_error", "out of memory", retryable=False),
    ]
    assert [order[0] for order in rig.port.take()] == ["begin", "begin", "abort", "abort"]
    assert [p.sequence_id for p in rig.step(64)] == ["later"]


def test_fail_with_a_write_in_flight_quarantines(rig: Rig) -> None:
    rig.assign("h", 10)
    rig.step(4)
    rig.begun("h", 3)
    rig.half.fail(rig.half.plan(4), InternalError("out of memory"))
    assert rig.counts()[BlockState.QUARANTINED] == 1
    rig.written("h")
    assert rig.is_free
    assert len(rig.outbox.returns) == 1


def test_fail_of_the_last_chunk_s_step_quarantines_what_was_to_leave_with_it(rig: Rig) -> None:
    rig.to_open()
    rig.half.fail(rig.half.plan(64), InternalError("out of memory"))
    assert [order[0] for order in rig.port.take()] == ["begin", "write", "write"]
    assert rig.counts() == {BlockState.QUARANTINED: 3, BlockState.FREE: 13}
    rig.written("h")
    assert rig.counts()[BlockState.QUARANTINED] == 3
    rig.written("h")
    assert rig.port.take() == [("abort", "h")]
    assert rig.is_free
    assert rig.returned() == [("h", "internal_error", False)]
    assert rig.half.pairs[DECODE.worker].failures == {}


def test_write_that_fails_after_the_commit_was_ordered_is_answered_with_it(rig: Rig) -> None:
    rig.to_open()
    rig.step(64)
    rig.port.take()
    error = PeerLostError("the peer died")
    rig.written("h", error)
    rig.written("h")
    assert rig.outbox.returns == []
    assert rig.counts() == {BlockState.LEASED: 3, BlockState.FREE: 13}
    rig.half.on_finished("h", error, 0.0)
    assert rig.returned() == [("h", "peer_lost", True)]
    assert rig.port.take() == [("abort", "h")]
    assert rig.is_free
    assert rig.half.pairs[DECODE.worker].failures == {"peer_lost": 1}


def test_ends_of_writes_put_the_deadline_off(rig: Rig) -> None:
    rig.to_open()
    rig.clock.advance(WRITE_TIMEOUT_S - 1)
    rig.step(64)
    rig.clock.advance(WRITE_TIMEOUT_S - 1)
    rig.written("h")
    rig.clock.advance(WRITE_TIMEOUT_S - 1)
    rig.half.expire()
    assert rig.outbox.returns == []
    rig.clock.advance(2)
    rig.half.expire()
    assert rig.returned() == [("h", "handoff_stalled", True)]
    rig.finished("h")
    assert rig.is_free


def test_corrupt_blocks_give_the_work_back_and_count(rig: Rig) -> None:
    rig.to_committing()
    rig.finished("h", CorruptKvError("other checksums"))
    assert rig.returned() == [("h", "kv_corrupt", True)]
    assert rig.half.pairs[DECODE.worker].failures == {"kv_corrupt": 1}
    assert rig.is_free


# --- leases


def test_leases_are_renewed_in_one_message_per_target(rig: Rig) -> None:
    """Of those that hold blocks there: not of one that waits for them, nor of one that is given up."""
    other = WorkerEndpoint(WorkerId("decode-1", 1), "127.0.0.1:3")
    for name in ("open", "committing", "waiting", "drained"):
        rig.assign(name, 6)
    rig.half.assign(ROUTER, replace(assignment("elsewhere", 6), decode=other))
    rig.step(29)
    for name in ("open", "committing", "drained", "elsewhere"):
        rig.begun(name, 2)
    rig.half.cancel("drained")
    rig.port.take()
    rig.half.renew_leases()
    assert rig.port.take() == []
    rig.clock.advance(RENEWAL_S)
    for _ in range(3):
        rig.half.renew_leases()
    assert rig.port.take() == [("renew", DECODE, ["open", "committing"]), ("renew", other, ["elsewhere"])]


def test_nothing_is_renewed_where_nothing_is_open(rig: Rig) -> None:
    rig.assign("h", 6)
    rig.step(4)
    rig.port.take()
    rig.clock.advance(RENEWAL_S)
    rig.half.renew_leases()
    assert rig.port.take() == []


def test_lost_lease_gives_the_work_back(rig: Rig) -> None:
    rig.assign("h", 10)
    rig.step(3)
    rig.begun("h", 3)
    rig.half.on_leases_lost(["unknown", "h"])
    assert rig.returned() == [("h", "lease_lost", True)]
    assert rig.is_free
    assert rig.half.pairs[DECODE.worker].failures == {"lease_lost": 1}


def test_lost_lease_with_a_write_in_flight_quarantines(rig: Rig) -> None:
    rig.to_open()
    rig.half.on_leases_lost(["h"])
    assert rig.counts() == {BlockState.QUARANTINED: 2, BlockState.RUNNING: 1, BlockState.FREE: 13}
    rig.written("h")
    assert rig.is_free


def test_lost_lease_of_a_commit_under_way_waits_for_its_answer(rig: Rig) -> None:
    """The target lets go when it takes over; its answer may be slower than a renewal's."""
    rig.to_committing()
    rig.half.on_leases_lost(["h"])
    assert rig.outbox.returns == []
    rig.finished("h")
    assert rig.is_free
    assert rig.half.stats.num_sent == 1


# --- targets that die


def test_target_gone_gives_back_what_it_was_to_decode_in_every_state(rig: Rig) -> None:
    """Queued, opening, open with a write in flight, committing; not one that ends here, nor another worker's."""
    rig.assign("committing", 6)
    rig.assign("opening", 4)
    rig.assign("writing", 10)
    rig.step(19)
    rig.begun("committing", 2)
    rig.begun("writing", 3)
    rig.assign("queued", 4)
    rig.assign("ends-here", 4, max_new_tokens=1)
    rig.half.assign(ROUTER, replace(assignment("other", 4), decode=WorkerEndpoint(WorkerId("decode-1", 1), "x")))
    for _ in range(2):
        rig.half.worker_gone(WorkerId("decode-1", 0))
        rig.half.worker_gone(DECODE.worker)
    names = ["committing", "opening", "writing", "queued"]
    assert sorted(rig.returned()) == sorted((name, "target_lost", True) for name in names)
    assert rig.counts() == {BlockState.QUARANTINED: 4, BlockState.RUNNING: 1, BlockState.FREE: 11}
    for name in ("committing", "writing"):
        rig.written(name, PeerLostError("the peer died"))
    rig.half.on_finished("committing", PeerLostError("the peer died"), 0.0)
    assert rig.counts() == {BlockState.FREE: 16}
    assert [piece.sequence_id for piece in rig.step(64)] == ["ends-here", "other"]
    assert rig.half.pairs[DECODE.worker].failures == {"target_lost": 3}


def test_totals_of_a_target_s_earlier_incarnations_are_dropped(rig: Rig) -> None:
    newer = WorkerEndpoint(WorkerId(DECODE.worker.name, DECODE.worker.incarnation + 1), "127.0.0.1:3")
    rig.to_committing()
    rig.half.assign(ROUTER, replace(assignment("new", 6), decode=newer))
    rig.step(64)
    rig.finished("h")
    assert list(rig.half.pairs) == [newer.worker]
    assert rig.half.stats.num_sent == 1


# --- cancels, in every state


def test_cancel_queued_leaves_the_others(rig: Rig) -> None:
    rig.assign("a", 6)
    rig.assign("b", 6)
    rig.half.cancel("a")
    assert [p.sequence_id for p in rig.step(64)] == ["b"]


def test_cancel_opening_tells_the_target(rig: Rig) -> None:
    rig.assign("h", 10)
    rig.step(4)
    rig.half.cancel("h")
    assert [order[0] for order in rig.port.take()] == ["begin", "abort"]
    assert rig.is_free
    rig.half.on_begin_refused("h", HandoffError("late"))
    rig.begun("h", 3)
    assert rig.port.take() == []


def test_cancel_open_without_a_write_frees_at_once(rig: Rig) -> None:
    rig.assign("h", 10)
    rig.step(3)
    rig.begun("h", 3)
    rig.half.cancel("h")
    assert [order[0] for order in rig.port.take()] == ["begin", "abort"]
    assert rig.is_free


def test_cancel_open_with_a_write_in_flight_frees_when_it_has_ended(rig: Rig) -> None:
    rig.to_open()
    rig.port.take()
    rig.half.cancel("h")
    rig.half.cancel("h")
    assert rig.counts()[BlockState.QUARANTINED] == 2
    assert rig.port.take() == []
    rig.written("h", HandoffError("the link broke"))
    assert rig.port.take() == [("abort", "h")]
    assert rig.is_free


@pytest.mark.parametrize("error", [None, HandoffError("not wanted")])
def test_cancel_committing_is_ended_by_the_answer(rig: Rig, error: HandoffError | None) -> None:
    rig.to_committing()
    rig.half.cancel("h")
    assert rig.counts()[BlockState.QUARANTINED] == 3
    rig.finished("h", error)
    assert rig.is_free
    assert rig.outbox.returns == []  # nobody wants it back


def test_cancel_unknown_is_ignored(rig: Rig) -> None:
    rig.half.cancel("nobody")


def test_cancel_gives_nothing_back(rig: Rig) -> None:
    rig.to_open()
    rig.half.cancel("h")
    rig.written("h")
    assert rig.outbox.returns == []


def test_drop_router_ends_its_prompts_only(rig: Rig) -> None:
    rig.assign("queued", 4)
    rig.half.assign("router-2", assignment("other", 4))
    rig.half.drop_router(ROUTER)
    assert [p.sequence_id for p in rig.step(64)] == ["other"]


# --- given back, and computed for this worker itself


def queue_five(rig: Rig) -> None:
    """The first is being computed; behind it wait prompts of 4, 6, 8 and 10 tokens."""
    rig.assign("started", 20)
    rig.step(4)
    for num_tokens in (4, 6, 8, 10):
        rig.assign(f"q{num_tokens}", num_tokens)


@pytest.mark.parametrize(
    ("num_tokens", "expected"),
    [(0, ["q10"]), (1, ["q10"]), (17, ["q10"]), (18, ["q10", "q8"]), (28, ["q10", "q8", "q6", "q4"]), (99, 4)],
)
def test_queued_prompts_go_back_youngest_first_up_to_so_many_tokens(
    rig: Rig, num_tokens: int, expected: list[str] | int
) -> None:
    queue_five(rig)
    rig.half.return_queued("recalled", num_tokens)
    names = [name for name, code, retryable in rig.returned() if (code, retryable) == ("recalled", True)]
    assert (len(names) if isinstance(expected, int) else names) == expected
    assert rig.half.num_queued == 4 - len(names)
    assert [piece.sequence_id for piece in rig.step(16)] == ["started"]
    assert "abort" not in [order[0] for order in rig.port.take()]


def test_recall_of_one_router_leaves_the_prompts_of_others(rig: Rig) -> None:
    queue_five(rig)
    rig.half.assign("router-2", assignment("other", 4))
    rig.half.return_queued("recalled", 99, ROUTER)
    assert "other" not in [name for name, _, _ in rig.returned()]
    assert rig.half.num_queued == 1


def test_all_queued_prompts_go_back_when_the_role_changes_and_started_ones_are_computed(rig: Rig) -> None:
    queue_five(rig)
    rig.half.return_queued("role_changed")
    assert [name for name, _, _ in rig.returned()] == ["q10", "q8", "q6", "q4"]
    assert rig.half.num_queued == 0
    assert [piece.end for piece in rig.step(64)] == [20]
    rig.half.return_queued("role_changed")
    assert len(rig.outbox.returns) == 4


def test_prompt_to_decode_here_passes_its_blocks_on_without_a_handoff() -> None:
    taken: list[tuple[str, str, list[int], int]] = []

    def take_over(router_id: str, work: Assignment, table: BlockTable, first_token: int) -> None:
        taken.append((router_id, work.handoff_id, list(table.block_ids), first_token))

    rig = Rig()
    rig.half._take_over = take_over
    rig.half.assign(ROUTER, replace(assignment("h", 10), decode=PREFILL))
    (chunk,) = rig.step(8)
    block_ids = list(chunk.block_ids)
    rig.half.worker_gone(PREFILL.worker)
    assert taken == []
    rig.step(8)
    assert taken == [(ROUTER, "h", block_ids, TOKEN)]
    assert [(event.position, event.token_id) for event in rig.outbox.tokens] == [(0, TOKEN)]
    assert rig.port.take() == []
    assert rig.half.is_idle
    assert rig.counts() == {BlockState.RUNNING: 3, BlockState.FREE: 13}
    rig.half.cancel("h")  # the token half's from now on
    assert rig.counts()[BlockState.RUNNING] == 3


@pytest.mark.parametrize("end", ["cancel", "fail", "stop", "last"])
def test_prompt_to_decode_here_that_ends_before_frees_its_blocks(rig: Rig, end: str) -> None:
    rig.half.assign(ROUTER, replace(assignment("h", 10, 1 if end == "last" else 8), decode=PREFILL))
    if end == "cancel":
        rig.step(8)
        rig.half.cancel("h")
    elif end == "fail":
        rig.half.fail(rig.half.plan(64), InternalError("out of memory"))
    else:
        rig.step(64, STOP_TOKEN if end == "stop" else TOKEN)
    assert rig.is_free
    assert rig.port.take() == []
