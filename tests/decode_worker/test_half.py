from collections import Counter
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field, replace

import pytest

from core.clock import ManualClock
from core.errors import (
    BatonError,
    CancelledRequestError,
    CorruptKvError,
    HandoffError,
    InternalError,
    StaleEpochError,
)
from core.events import ReturnedWork, TokenEvent, TokenTiming
from core.ids import WorkerEndpoint, WorkerId
from core.logprobs import TokenLogprobs
from core.request import FinishReason
from core.sampling import SamplingParams
from decode_worker import book
from decode_worker.half import DecodeHalf
from decode_worker.receiver import ANNOUNCED_S, BEGUN_S, LEASE_S
from engine.kv.accounting import BlockState
from engine.kv.pool import BlockPool
from engine.plan import Draw, SequenceSlice, SliceKind
from kvtransfer.port import Reservation
from tests.builders import PREFILL, STOP_TOKEN, ListOutbox, ListPort, assignment, drawn, small_pool

ROUTER = "router-1"
TOKEN = 5
FIRST = 7
BLOCK_TOKENS = 4
SOURCE = PREFILL.worker
NEWER = WorkerId(SOURCE.name, SOURCE.incarnation + 1)

Answer = Reservation | BatonError | None


@dataclass
class Rig:
    num_blocks: int = 16
    max_num_seqs: int = 4
    num_partitions: int = 1
    port: ListPort = field(default_factory=ListPort)
    outbox: ListOutbox = field(default_factory=ListOutbox)
    clock: ManualClock = field(default_factory=ManualClock)

    def __post_init__(self) -> None:
        self.pool: BlockPool = small_pool(self.num_blocks, BLOCK_TOKENS, num_partitions=self.num_partitions)
        self.half = DecodeHalf(self.pool, self.port, self.outbox, self.clock, self.max_num_seqs)
        self.begun: dict[str, list[Answer]] = {}
        self.committed: dict[str, list[Answer]] = {}
        self.asked: Counter[str] = Counter()

    def assign(self, handoff_id: str, num_prompt_tokens: int = 6, max_new_tokens: int = 8) -> None:
        self.half.assign(ROUTER, assignment(handoff_id, num_prompt_tokens, max_new_tokens))

    def begin(self, handoff_id: str, num_tokens: int | None = None) -> None:
        self.asked[handoff_id] += 1
        self.half.receiver.begin(handoff_id, SOURCE, num_tokens, self.begun.setdefault(handoff_id, []).append)

    def commit(self, handoff_id: str, num_blocks: int, token_ids: Seq[int] = (FIRST,)) -> Answer:
        self.asked[handoff_id] += 1
        answers = self.committed.setdefault(handoff_id, [])
        self.half.receiver.commit(handoff_id, SOURCE, token_ids, num_blocks, answers.append)
        return answers[-1]

    def reject(self, handoff_id: str) -> Answer:
        self.asked[handoff_id] += 1
        answers = self.committed.setdefault(handoff_id, [])
        self.half.receiver.reject(handoff_id, SOURCE, answers.append)
        return answers[-1]

    def renew(self, *handoff_ids: str, source: WorkerId = SOURCE) -> list[str]:
        """Returns those without a lease."""
        answers: list[Seq[str]] = []
        self.half.receiver.renew(source, handoff_ids, answers.append)
        (lost,) = answers
        return list(lost)

    def ended(self, handoff_id: str) -> None:
        self.half.receiver.source_ended(handoff_id, SOURCE)

    def receive(self, handoff_id: str, num_prompt_tokens: int = 6, max_new_tokens: int = 8) -> list[int]:
        """Assigned, begun and reserved; returns the blocks."""
        self.assign(handoff_id, num_prompt_tokens, max_new_tokens)
        self.begin(handoff_id)
        self.half.admit()
        (reserved,) = self.begun[handoff_id]
        assert isinstance(reserved, Reservation), reserved
        return list(reserved.block_ids)

    def run(self, handoff_id: str, num_prompt_tokens: int = 6, max_new_tokens: int = 8) -> list[int]:
        block_ids = self.receive(handoff_id, num_prompt_tokens, max_new_tokens)
        assert self.commit(handoff_id, len(block_ids)) is None
        return block_ids

    def step(self, token: int = TOKEN) -> list[SequenceSlice]:
        self.half.admit()
        slices = self.half.plan()
        self.half.apply(slices, drawn(slices, token))
        self.pool.blocks.check()
        return slices

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
    for handoff_id, answers in (*rig.begun.items(), *rig.committed.items()):
        assert len(answers) <= rig.asked[handoff_id], "a reply function was called twice"


# --- taking over


@pytest.mark.parametrize("is_router_first", [True, False])
def test_begin_is_answered_with_leased_blocks_in_whatever_order_words_come(rig: Rig, is_router_first: bool) -> None:
    words = [lambda: rig.assign("h", 9), lambda: rig.begin("h")]
    for say in words if is_router_first else reversed(words):
        rig.half.admit()
        assert rig.counts() == {BlockState.FREE: 16}
        say()
    assert rig.begun["h"] == []
    rig.half.admit()
    (reserved,) = rig.begun["h"]
    assert isinstance(reserved, Reservation)
    assert (reserved.num_present, len(reserved.block_ids), reserved.block_tokens) == (0, 3, BLOCK_TOKENS)
    assert rig.counts() == {BlockState.LEASED: 3, BlockState.FREE: 13}
    assert (rig.half.num_incoming, rig.half.receiver.num_receiving, rig.half.num_running) == (1, 1, 0)


def test_commit_joins_and_the_next_step_continues_after_the_first_token(rig: Rig) -> None:
    work = replace(assignment("h", 6, first_position=3), sampling=SamplingParams(temperature=0.5, seed=8))
    rig.half.assign(ROUTER, work)
    rig.begin("h")
    rig.half.admit()
    assert rig.half.plan() == []
    assert rig.commit("h", 2) is None
    assert rig.counts() == {BlockState.RUNNING: 2, BlockState.FREE: 14}
    assert (rig.half.num_incoming, rig.half.receiver.num_receiving, rig.half.num_running) == (0, 0, 1)
    (piece,) = rig.step()
    assert (piece.kind, list(piece.token_ids), piece.start) == (SliceKind.DECODE, [FIRST], 6)
    assert piece.draw == Draw(work.sampling, position=4)
    assert rig.outbox.tokens == [TokenEvent("h", 4, TOKEN, None, timing=TokenTiming(0.0, 0.0))]
    (piece,) = rig.step()
    assert (list(piece.token_ids), piece.start) == ([TOKEN], 7)
    assert rig.half.receiver.num_received == 1


def test_only_the_first_token_here_says_how_long_it_took_since_the_commit(rig: Rig) -> None:
    rig.run("h")
    rig.clock.advance(0.125)
    rig.step()
    rig.clock.advance(0.125)
    rig.step()
    assert [event.timing for event in rig.outbox.tokens] == [TokenTiming(0.0, 0.125), None]


def test_rules_know_the_answer_of_earlier_attempts_the_first_token_and_every_other(rig: Rig) -> None:
    work = replace(assignment("h", 6, first_position=2), sampling=SamplingParams(presence_penalty=1.0))
    rig.half.assign(ROUTER, work)
    rig.begin("h")
    rig.half.admit()
    rig.commit("h", 2)
    for answer in ([5, 6, FIRST], [5, 6, FIRST, TOKEN]):
        (piece,) = rig.half.plan()
        assert piece.draw is not None
        assert piece.draw.rules is not None
        assert piece.draw.rules.counts is not None
        counts = zip(piece.draw.rules.counts.token_ids.tolist(), piece.draw.rules.counts.counts.tolist(), strict=True)
        assert Counter(dict(counts)) == Counter(answer)
        rig.half.apply([piece], drawn([piece], TOKEN))


def test_logprobs_of_a_step_go_with_their_tokens(rig: Rig) -> None:
    for name in ("asked", "silent"):
        rig.run(name)
    slices = rig.half.plan()
    logprobs = TokenLogprobs(TOKEN, -1.0)
    rig.half.apply(slices, replace(drawn(slices, TOKEN), logprobs={"asked": logprobs}))
    assert {event.handoff_id: event.logprobs for event in rig.outbox.tokens} == {"asked": logprobs, "silent": None}


@pytest.mark.parametrize(
    ("max_new_tokens", "tokens", "reason"),
    [(4, [TOKEN, TOKEN, TOKEN], FinishReason.LENGTH), (8, [TOKEN, STOP_TOKEN], FinishReason.STOP)],
)
def test_sequence_ends_with_its_reason_and_frees(
    rig: Rig, max_new_tokens: int, tokens: list[int], reason: FinishReason
) -> None:
    rig.run("h", 6, max_new_tokens)
    for token in tokens:
        assert len(rig.step(token)) == 1
    assert [(e.position, e.token_id) for e in rig.outbox.tokens] == list(enumerate(tokens, start=1))
    assert [e.finish_reason for e in rig.outbox.tokens] == [None] * (len(tokens) - 1) + [reason]
    assert rig.step() == []
    assert rig.is_free
    assert rig.outbox.returns == []


def test_sequence_grows_by_a_block_when_the_last_is_full(rig: Rig) -> None:
    first = rig.run("h", num_prompt_tokens=7)
    tables = [list(rig.step()[0].block_ids) for _ in range(6)]  # KV of 8, 9 ... 13 tokens
    assert [len(table) for table in tables] == [2, 3, 3, 3, 3, 4]
    assert all(table[:2] == first for table in tables)


def test_prompt_that_fills_its_blocks_grows_at_the_first_step(rig: Rig) -> None:
    rig.run("h", num_prompt_tokens=8)
    assert len(rig.step()[0].block_ids) == 3


def test_all_running_sequences_are_in_every_step(rig: Rig) -> None:
    for name in "abc":
        rig.run(name)
    assert [piece.sequence_id for piece in rig.step()] == ["a", "b", "c"]


# --- room


def test_full_batch_makes_handoffs_wait_first_come_first_served() -> None:
    rig = Rig(max_num_seqs=2)
    for name in "abcd":
        rig.assign(name)
    for name in "bdca":  # sources begin in another order
        rig.begin(name)
        rig.half.admit()
    assert [name for name in "abcd" if rig.begun[name]] == ["b", "d"]
    rig.commit("b", 2)
    rig.half.admit()
    assert not rig.begun["a"]
    assert not rig.begun["c"]
    rig.half.cancel("b")
    rig.half.admit()
    assert rig.begun["a"]
    assert not rig.begun["c"]


def test_room_goes_by_priority_then_to_the_tenant_that_was_served_least_then_by_age() -> None:
    rig = Rig(max_num_seqs=1)
    for name, tenant, priority in (("a1", "a", 0), ("a2", "a", 0), ("b1", "b", 0), ("soon", "a", -1)):
        rig.half.assign(ROUTER, replace(assignment(name), tenant=tenant, priority=priority))
        rig.begin(name)
    order = []
    for _ in range(4):
        rig.half.admit()
        (name,) = [name for name, answers in rig.begun.items() if answers and name not in order]
        order.append(name)
        assert rig.commit(name, 2) is None
        rig.step()
        rig.half.cancel(name)
    assert order == ["soon", "b1", "a1", "a2"]
    assert rig.half.is_idle


def test_sequence_that_leaves_while_it_waits_for_room_makes_way() -> None:
    rig = Rig(max_num_seqs=1)
    rig.run("running")
    for name in ("first", "second"):
        rig.assign(name)
        rig.begin(name)
    rig.half.cancel("first")
    rig.half.cancel("running")
    rig.half.admit()
    assert isinstance(rig.begun["second"][0], Reservation)


def test_full_pool_makes_handoffs_wait_and_a_small_one_does_not_overtake(rig: Rig) -> None:
    rig.run("running", num_prompt_tokens=40, max_new_tokens=2)
    rig.assign("big", num_prompt_tokens=24)
    rig.assign("small", num_prompt_tokens=4)
    for name in ("big", "small"):
        rig.begin(name)
    rig.half.admit()
    assert rig.begun == {"running": rig.begun["running"], "big": [], "small": []}
    rig.step()
    rig.half.admit()
    assert [len(rig.begun[name]) for name in ("big", "small")] == [1, 1]


def test_room_is_left_for_running_sequences_to_grow() -> None:
    rig = Rig(num_blocks=4)
    rig.run("running", num_prompt_tokens=8)
    rig.assign("h", num_prompt_tokens=8)
    rig.begin("h")
    rig.half.admit()
    assert rig.begun["h"] == []


def test_abandoned_handoff_holds_its_slot_until_its_source_has_ended() -> None:
    rig = Rig(max_num_seqs=1)
    rig.receive("a")
    rig.half.cancel("a")
    rig.assign("b")
    rig.begin("b")
    rig.half.admit()
    assert rig.begun["b"] == []
    rig.ended("a")
    rig.half.admit()
    assert len(rig.begun["b"]) == 1


def test_out_of_blocks_the_youngest_goes_back_as_preempted() -> None:
    rig = Rig(num_blocks=6)
    for name in "abc":
        rig.run(name, num_prompt_tokens=3)
    for _ in range(5):  # up to 8 tokens each: two blocks each
        assert len(rig.step()) == 3
    assert [piece.sequence_id for piece in rig.step()] == ["a", "b"]
    assert rig.returned() == [("c", "preempted", True)]
    assert "6 in all" in rig.outbox.returns[0].message
    assert rig.half.num_running == 2
    rig.begin("c")
    assert isinstance(rig.begun["c"][-1], CancelledRequestError)


def test_preempted_sequence_is_its_own_victim_when_it_is_the_only_one() -> None:
    rig = Rig(num_blocks=3)
    rig.run("a", num_prompt_tokens=3, max_new_tokens=100)
    rig.receive("b", num_prompt_tokens=4)
    for _ in range(5):
        rig.step()
    assert rig.step() == []
    assert rig.returned() == [("a", "preempted", True)]
    assert rig.counts() == {BlockState.LEASED: 1, BlockState.FREE: 2}


def test_out_of_blocks_on_one_rank_nobody_on_another_is_preempted() -> None:
    """The youngest of all would be c."""
    rig = Rig(num_blocks=8, num_partitions=2)
    for name, num_prompt_tokens in (("a", 12), ("b", 3), ("c", 3)):
        rig.run(name, num_prompt_tokens)
    for _ in range(4):  # a fills the four blocks of its rank
        assert len(rig.step()) == 3
    assert [piece.sequence_id for piece in rig.step()] == ["b", "c"]
    assert rig.returned() == [("a", "preempted", True)]


def test_prompt_waits_until_one_rank_has_room_for_all_of_it() -> None:
    rig = Rig(num_blocks=8, num_partitions=2)
    for name in "ab":
        rig.run(name, num_prompt_tokens=6)  # two blocks on either rank
    rig.assign("c", num_prompt_tokens=9)
    rig.begin("c")
    rig.step()
    assert rig.begun["c"] == []  # four blocks are free, but nowhere three
    rig.half.cancel("a")
    rig.step()
    (reserved,) = rig.begun["c"]
    assert isinstance(reserved, Reservation)
    assert len({rig.pool.blocks.partition_of(block_id) for block_id in reserved.block_ids}) == 1


# --- words out of order


def test_assign_after_the_source_ended_is_ignored(rig: Rig) -> None:
    """Its first token ended the answer before the router's word came."""
    rig.ended("h")
    rig.assign("h")
    assert rig.half.num_incoming == 0
    rig.begin("h")
    assert isinstance(rig.begun["h"][0], CancelledRequestError)


def test_assign_twice_changes_nothing(rig: Rig) -> None:
    rig.run("h", num_prompt_tokens=6)
    rig.half.assign("router-2", assignment("h", num_prompt_tokens=40))
    rig.half.drop_router("router-2")
    (piece,) = rig.step()
    assert piece.start == 6


def test_begin_twice_refuses_the_second_only(rig: Rig) -> None:
    rig.begin("h")
    rig.begin("h")
    rig.assign("h")
    rig.half.admit()
    first, second = rig.begun["h"]
    assert isinstance(first, HandoffError)
    assert "twice" in str(first)
    assert isinstance(second, Reservation)


def test_begin_after_reserving_is_refused(rig: Rig) -> None:
    rig.receive("h")
    rig.begin("h")
    assert isinstance(rig.begun["h"][1], HandoffError)
    assert rig.commit("h", 2) is None


def test_commit_of_unknown_is_refused(rig: Rig) -> None:
    assert isinstance(rig.commit("h", 2), CancelledRequestError)
    assert rig.is_free


@pytest.mark.parametrize("num_blocks", [0, 1, 3])
def test_commit_of_another_number_of_blocks_is_refused_and_given_back(rig: Rig, num_blocks: int) -> None:
    rig.receive("h")
    answer = rig.commit("h", num_blocks)
    assert isinstance(answer, HandoffError)
    assert f"2 blocks expected, {num_blocks} came" in str(answer)
    assert rig.returned() == [("h", "handoff_incomplete", True)]
    assert rig.is_free


# --- sequences that have been running elsewhere


def receive_running(rig: Rig, num_tokens: int, max_new_tokens: int = 40) -> Reservation:
    """A prompt of six tokens whose sequence runs at its source; answered for `num_tokens` tokens."""
    rig.assign("h", 6, max_new_tokens)
    rig.begin("h", num_tokens)
    rig.half.admit()
    (reserved,) = rig.begun["h"]
    assert isinstance(reserved, Reservation)
    return reserved


def test_running_sequence_goes_on_behind_all_its_tokens_in_the_room_it_has_brought(rig: Rig) -> None:
    assert len(receive_running(rig, 30).block_ids) == 8
    assert rig.commit("h", 3, (FIRST, 1, 2, 3, 4)) is None
    assert rig.counts() == {BlockState.RUNNING: 8, BlockState.FREE: 8}
    (piece,) = rig.step()
    assert (piece.start, list(piece.token_ids)) == (10, [4])
    assert piece.draw is not None
    assert (piece.draw.position, rig.outbox.tokens[-1].position) == (5, 5)
    for _ in range(21):
        rig.step()
    assert rig.counts()[BlockState.RUNNING] == 8
    rig.step()
    assert rig.counts()[BlockState.RUNNING] == 9
    assert (rig.half.receiver.num_received, rig.half.receiver.num_migrated_here) == (1, 1)


def test_running_sequence_s_rules_know_all_its_tokens(rig: Rig) -> None:
    params = SamplingParams(repetition_penalty=2.0, min_tokens=12, bad_words=((4, 8),))
    rig.half.assign(ROUTER, replace(assignment("h", 6, 40), sampling=params))
    rig.begin("h", 30)
    rig.half.admit()
    assert rig.commit("h", 3, (FIRST, 1, 2, 3, 4)) is None
    rules = rig.step()[0].draw.rules  # type: ignore[union-attr]
    assert rules is not None
    assert rules.counts is not None
    assert dict(zip(rules.counts.token_ids.tolist(), rules.counts.counts.tolist(), strict=True))[FIRST] == 1
    assert STOP_TOKEN in rules.masked_ids(5)


def test_source_that_asks_for_less_than_the_prompt_gets_room_for_the_prompt(rig: Rig) -> None:
    assert len(receive_running(rig, 1).block_ids) == 2


@pytest.mark.parametrize(
    ("token_ids", "num_blocks", "fault"),
    [
        ((), 2, "0 tokens came of an answer of 40"),
        ((FIRST,) * 40, 8, "40 tokens came of an answer of 40"),
        ((FIRST,) * 5, 2, "3 blocks expected, 2 came"),
        ((FIRST,) * 5, 8, "3 blocks expected, 8 came"),
        ((FIRST,) * 28, 9, "fills 9 blocks and 8 were asked for"),
    ],
)
def test_commit_that_does_not_fit_the_sequence_is_refused_and_given_back(
    rig: Rig, token_ids: tuple[int, ...], num_blocks: int, fault: str
) -> None:
    receive_running(rig, 30)
    answer = rig.commit("h", num_blocks, token_ids)
    assert isinstance(answer, HandoffError)
    assert fault in str(answer)
    assert rig.returned() == [("h", "handoff_incomplete", True)]
    assert rig.is_free


# --- words that come twice, late or from strangers


def test_commit_twice_is_refused_and_the_sequence_runs_on(rig: Rig) -> None:
    rig.run("h")
    assert isinstance(rig.commit("h", 2), CancelledRequestError)
    assert len(rig.step()) == 1


def test_abort_after_commit_says_nothing(rig: Rig) -> None:
    rig.run("h")
    rig.ended("h")
    assert len(rig.step()) == 1


def test_abort_before_begin_refuses_it(rig: Rig) -> None:
    rig.assign("h")
    rig.ended("h")
    assert rig.is_free
    rig.begin("h")
    assert isinstance(rig.begun["h"][0], CancelledRequestError)
    assert rig.is_free


@pytest.mark.parametrize("is_assigned", [True, False])
def test_abort_while_waiting_answers_the_begin(rig: Rig, is_assigned: bool) -> None:
    rig.begin("h")
    if is_assigned:
        rig.assign("h")
    rig.ended("h")
    (answer,) = rig.begun["h"]
    assert isinstance(answer, CancelledRequestError)
    assert rig.is_free


def test_abort_while_receiving_frees(rig: Rig) -> None:
    rig.receive("h")
    rig.ended("h")
    assert rig.is_free


def test_ended_handoffs_remembered_are_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "MAX_TOMBSTONES", 3)
    for i in range(5):
        rig.ended(f"h{i}")
    assert list(rig.half._book.ended) == ["h2", "h3", "h4"]


# --- deadlines


def test_lease_expires_quarantines_gives_back_once_and_is_freed_by_the_source(rig: Rig) -> None:
    rig.receive("h")
    rig.clock.advance(LEASE_S)
    rig.half.expire()
    assert rig.outbox.returns == []
    rig.clock.advance(0.1)
    rig.half.expire()
    rig.half.expire()
    assert rig.returned() == [("h", "lease_expired", True)]
    assert rig.counts() == {BlockState.QUARANTINED: 2, BlockState.FREE: 14}
    assert rig.half.receiver.num_receiving == 1  # the source may still write
    assert rig.half.receiver.pairs[SOURCE].num_expired_leases == 1
    rig.ended("h")
    assert rig.is_free


def test_renewed_lease_lasts_as_long_again(rig: Rig) -> None:
    rig.receive("h")
    for _ in range(3):
        rig.clock.advance(LEASE_S - 1)
        assert rig.renew("h") == []
        rig.half.expire()
    assert rig.outbox.returns == []
    rig.clock.advance(LEASE_S + 1)
    rig.half.expire()
    assert rig.returned() == [("h", "lease_expired", True)]


def test_renewal_names_what_has_no_lease_and_starts_none(rig: Rig) -> None:
    """A sequence that runs was taken over: its source is about to hear so."""
    rig.run("running")
    rig.receive("expired")
    rig.clock.advance(LEASE_S + 1)
    rig.half.expire()
    rig.receive("kept")
    assert rig.renew("unknown", "running", "expired", "kept") == ["unknown", "expired"]
    rig.ended("expired")
    assert rig.renew("expired") == ["expired"]
    assert rig.returned() == [("expired", "lease_expired", True)]


def test_renewal_by_another_worker_extends_nothing(rig: Rig) -> None:
    rig.receive("h")
    rig.clock.advance(LEASE_S - 1)
    assert rig.renew("h", source=NEWER) == ["h"]
    rig.clock.advance(2)
    rig.half.expire()
    assert rig.returned() == [("h", "lease_expired", True)]


def test_commit_after_the_lease_is_refused_and_frees(rig: Rig) -> None:
    rig.receive("h")
    rig.clock.advance(LEASE_S + 1)
    rig.half.expire()
    assert isinstance(rig.commit("h", 2), CancelledRequestError)
    assert rig.is_free
    assert len(rig.outbox.returns) == 1


def test_running_sequence_has_no_lease(rig: Rig) -> None:
    rig.run("h")
    rig.clock.advance(LEASE_S + 1)
    rig.half.expire()
    assert len(rig.step()) == 1


def test_source_that_does_not_begin_gives_the_work_back(rig: Rig) -> None:
    rig.assign("h")
    rig.clock.advance(ANNOUNCED_S)
    rig.half.expire()
    assert rig.outbox.returns == []
    rig.clock.advance(0.1)
    rig.half.expire()
    assert rig.returned() == [("h", "begin_overdue", True)]
    assert rig.is_free
    rig.begin("h")
    assert isinstance(rig.begun["h"][0], CancelledRequestError)


def test_router_that_does_not_announce_has_the_source_refused(rig: Rig) -> None:
    rig.begin("h")
    rig.clock.advance(BEGUN_S + 1)
    rig.half.expire()
    (answer,) = rig.begun["h"]
    assert isinstance(answer, HandoffError)
    assert "no router has announced handoff h within 30 s" in str(answer)
    rig.assign("h")
    assert rig.is_free
    assert rig.outbox.returns == []


def test_handoff_that_waits_for_room_waits_as_long_as_its_source(rig: Rig) -> None:
    rig.run("running", num_prompt_tokens=40)
    rig.assign("h", num_prompt_tokens=40)
    rig.begin("h")
    rig.clock.advance(ANNOUNCED_S + 1)
    rig.half.expire()
    assert rig.begun["h"] == []
    rig.half.cancel("running")
    rig.half.admit()
    assert len(rig.begun["h"]) == 1


# --- KV that is not what was sent


def test_corrupt_kv_gives_the_work_back_and_frees(rig: Rig) -> None:
    rig.receive("h")
    assert isinstance(rig.reject("h"), CorruptKvError)
    assert rig.returned() == [("h", "kv_corrupt", True)]
    assert rig.half.receiver.pairs[SOURCE].failures == {"kv_corrupt": 1}
    assert rig.is_free


def test_corrupt_kv_of_a_cancelled_handoff_frees_and_gives_nothing_back(rig: Rig) -> None:
    rig.receive("h")
    rig.half.cancel("h")
    assert isinstance(rig.reject("h"), CancelledRequestError)
    assert rig.outbox.returns == []
    assert rig.is_free


# --- dead and wrong sources


def test_worker_gone_frees_what_it_was_sending(rig: Rig) -> None:
    rig.receive("receiving")
    rig.receive("abandoned")
    rig.half.cancel("abandoned")
    rig.begin("unassigned")
    rig.assign("announced")
    rig.run("running")
    for _ in range(2):
        rig.half.worker_gone(SOURCE)
    assert rig.returned() == [("receiving", "source_lost", True), ("announced", "source_lost", True)]
    assert str(SOURCE) in rig.outbox.returns[0].message
    assert isinstance(rig.begun["unassigned"][0], BatonError)
    assert rig.counts() == {BlockState.RUNNING: 2, BlockState.FREE: 14}
    assert [piece.sequence_id for piece in rig.step()] == ["running"]


@pytest.mark.parametrize("worker", [WorkerId(SOURCE.name, SOURCE.incarnation - 1), WorkerId("prefill-9", 99)])
def test_other_workers_dying_concern_nobody(rig: Rig, worker: WorkerId) -> None:
    rig.receive("h")
    rig.half.worker_gone(worker)
    assert rig.commit("h", 2) is None


def test_late_words_of_a_dead_worker_reserve_nothing(rig: Rig) -> None:
    """Nobody would ever free it: that the worker is dead is said once."""
    rig.half.worker_gone(NEWER)
    rig.half.worker_gone(WorkerId(SOURCE.name, SOURCE.incarnation - 1))
    rig.begin("h")
    assert isinstance(rig.begun["h"][0], StaleEpochError)
    rig.assign("h")
    assert rig.returned() == [("h", "source_lost", True)]
    assert rig.is_free


def test_reborn_worker_is_served(rig: Rig) -> None:
    rig.half.worker_gone(SOURCE)
    rig.half.assign(ROUTER, replace(assignment("h"), prefill=WorkerEndpoint(NEWER, "127.0.0.1:3")))
    answers: list[Answer] = []
    rig.half.receiver.begin("h", NEWER, None, answers.append)
    rig.half.admit()
    assert isinstance(answers[0], Reservation)


def test_words_of_another_worker_about_a_handoff_change_nothing(rig: Rig) -> None:
    rig.receive("h")
    answers: list[Answer] = []
    rig.half.receiver.commit("h", NEWER, (FIRST,), 2, answers.append)
    rig.half.receiver.reject("h", NEWER, answers.append)
    assert [type(answer) for answer in answers] == [StaleEpochError] * 2
    rig.half.receiver.source_ended("h", NEWER)
    assert rig.counts() == {BlockState.LEASED: 2, BlockState.FREE: 14}
    assert rig.commit("h", 2) is None


# --- cancels


def test_cancel_announced_refuses_the_begin_that_comes(rig: Rig) -> None:
    rig.assign("h")
    rig.half.cancel("h")
    rig.begin("h")
    assert isinstance(rig.begun["h"][0], CancelledRequestError)
    assert rig.is_free


@pytest.mark.parametrize("is_assigned", [True, False])
def test_cancel_waiting_answers_the_begin(rig: Rig, is_assigned: bool) -> None:
    rig.begin("h")
    if is_assigned:
        rig.assign("h")
    rig.half.cancel("h")
    (answer,) = rig.begun["h"]
    assert isinstance(answer, CancelledRequestError)
    assert rig.is_free


def test_cancel_receiving_quarantines_until_the_source_has_ended(rig: Rig) -> None:
    rig.receive("h")
    rig.half.cancel("h")
    rig.half.cancel("h")
    assert rig.counts() == {BlockState.QUARANTINED: 2, BlockState.FREE: 14}
    assert rig.outbox.returns == []
    rig.ended("h")
    assert rig.is_free


def test_cancel_running_frees_at_once(rig: Rig) -> None:
    rig.run("a")
    rig.run("b")
    rig.half.cancel("a")
    assert [piece.sequence_id for piece in rig.step()] == ["b"]
    assert rig.counts() == {BlockState.RUNNING: 2, BlockState.FREE: 14}


def test_cancel_unknown_is_ignored(rig: Rig) -> None:
    rig.half.cancel("nobody")
    assert rig.is_free


def test_drop_router_ends_its_sequences_in_every_state(rig: Rig) -> None:
    rig.assign("announced")
    rig.receive("receiving")
    rig.run("running")
    rig.half.assign("router-2", assignment("other"))
    rig.half.drop_router(ROUTER)
    assert rig.counts() == {BlockState.QUARANTINED: 2, BlockState.FREE: 14}
    assert set(rig.half._book.sequences) == {"receiving", "other"}
    assert rig.outbox.returns == []


def test_fail_gives_back_the_step_s_sequences_for_good(rig: Rig) -> None:
    rig.run("a")
    rig.run("b")
    rig.receive("c")
    rig.half.fail(rig.half.plan(), InternalError("out of memory"))
    assert rig.outbox.returns == [
        ReturnedWork("a", "internal_error", "out of memory", retryable=False),
        ReturnedWork("b", "internal_error", "out of memory", retryable=False),
    ]
    assert rig.counts() == {BlockState.LEASED: 2, BlockState.FREE: 14}
    assert rig.commit("c", 2) is None
    assert [piece.sequence_id for piece in rig.step()] == ["c"]
