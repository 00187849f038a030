"""Imports of prefixes as pure state: what is asked for, and what becomes of blocks and prompts."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from core.blocks import BlockName
from core.clock import ManualClock
from core.ids import WorkerEndpoint, WorkerId
from core.request import PrefixSource
from engine.kv.accounting import BlockState
from engine.kv.pool import BlockPool
from engine.plan import SequenceSlice
from kvtransfer.prefix_port import FetchEnd, PrefixFetch
from prefill_worker.half import PrefillHalf
from prefill_worker.prefix_importer import ASK_AGAIN_S, MAX_POOL_SHARE, MAX_TIMEOUT_S, MIN_TIMEOUT_S
from prefill_worker.source_trust import FIRST_PAUSE_S
from tests.builders import DECODE, ListOutbox, ListPort, assignment, drawn, keep_here, small_pool

BLOCK_TOKENS = 4
SOURCE = DECODE
OTHER = WorkerEndpoint(WorkerId("decode-1", 1), "127.0.0.1:3")


class ListPrefixPort:
    """Keeps all orders, and answers none."""

    def __init__(self) -> None:
        self.fetches: list[PrefixFetch] = []
        self.ends: list[tuple[str, WorkerEndpoint]] = []

    def fetch(self, fetch: PrefixFetch) -> None:
        self.fetches.append(fetch)

    def end(self, fetch_id: str, source: WorkerEndpoint) -> None:
        self.ends.append((fetch_id, source))


@dataclass
class Rig:
    """A prompt half whose prompts are 1, 2, 3 ...: each begins as the shorter ones do."""

    pool: BlockPool = field(default_factory=lambda: small_pool(16, BLOCK_TOKENS, enable_prefix_caching=True))
    clock: ManualClock = field(default_factory=ManualClock)
    port: ListPrefixPort = field(default_factory=ListPrefixPort)

    def __post_init__(self) -> None:
        self.half = PrefillHalf(
            self.pool, ListPort(), ListOutbox(), self.clock, next_step=lambda: 1, take_over=keep_here
        )
        self.imports = self.half.imports
        self.imports.bind(self.port)

    def assign(
        self,
        handoff_id: str,
        num_tokens: int,
        num_there: int,
        *,
        source: WorkerEndpoint = SOURCE,
        after_s: float = 0.1,
        tenant: str = "",
    ) -> None:
        work = replace(assignment(handoff_id, num_tokens, max_new_tokens=1), cache_salt=tenant)
        self.half.assign("router-1", replace(work, prefix_source=PrefixSource(source, num_there, after_s)))

    def step(self) -> list[tuple[str, int, int]]:
        slices: Sequence[SequenceSlice] = self.half.plan(64)
        self.half.apply(slices, drawn(slices, 50))
        self.pool.check()
        return [(piece.sequence_id, piece.start, piece.end) for piece in slices]

    def counts(self) -> dict[BlockState, int]:
        return {state: count for state, count in self.pool.blocks.counts().items() if count}


@pytest.fixture
def rig() -> Rig:
    return Rig()


def names(rig: Rig, num_tokens: int) -> list[BlockName]:
    chain = rig.pool.chain("")
    assert chain is not None
    chain.extend(range(1, num_tokens + 1))
    return chain.names


def test_blocks_are_leased_and_asked_for_by_name_and_the_prompt_waits(rig: Rig) -> None:
    rig.assign("h", 14, num_there=12)
    (fetch,) = rig.port.fetches
    assert (fetch.source, list(fetch.names)) == (SOURCE, names(rig, 12))
    assert rig.counts() == {BlockState.LEASED: 3, BlockState.FREE: 13}
    assert rig.imports.num_inbound == 1
    assert rig.step() == []


def test_what_came_is_not_computed(rig: Rig) -> None:
    rig.assign("h", 14, num_there=12)
    rig.imports.on_fetched("h", FetchEnd(3, write_s=0.5))
    assert rig.counts() == {BlockState.CACHED: 3, BlockState.FREE: 13}
    assert rig.step() == [("h", 12, 14)]
    stats = rig.imports.stats
    assert (stats.num_fetches, stats.num_failed, stats.num_tokens, stats.write_s) == (1, 0, 12, 0.5)
    assert stats.num_bytes == 3 * rig.pool.block_bytes
    assert rig.half.prefix_stats.num_hit_tokens == 12


def test_part_that_came_is_of_use(rig: Rig) -> None:
    rig.assign("h", 14, num_there=12)
    rig.imports.on_fetched("h", FetchEnd(1))
    assert rig.step() == [("h", 4, 14)]


def test_only_what_is_missing_is_asked_for_and_what_is_here_stays_meanwhile(rig: Rig) -> None:
    rig.half.assign("router-1", assignment("warm", 9, max_new_tokens=1))
    rig.step()
    rig.assign("h", 20, num_there=16)
    (fetch,) = rig.port.fetches
    assert (list(fetch.names), len(fetch.block_ids)) == (names(rig, 16), 2)
    assert rig.counts() == {BlockState.RUNNING: 2, BlockState.LEASED: 2, BlockState.FREE: 12}
    rig.imports.on_fetched("h", FetchEnd(2))
    assert rig.step() == [("h", 16, 20)]


@pytest.mark.parametrize(("num_tokens", "num_there"), [(12, 8), (9, 8), (4, 4), (14, 3)])
def test_nothing_is_asked_for_when_nothing_is_missing_or_only_the_last_token_would_be_left_out(
    rig: Rig, num_tokens: int, num_there: int
) -> None:
    rig.half.assign("router-1", assignment("warm", 9, max_new_tokens=1))
    rig.step()
    rig.assign("h", num_tokens, num_there)
    assert rig.port.fetches == []
    assert not rig.imports.is_awaited("h")


def test_other_prompts_are_computed_meanwhile_and_the_one_that_waited_keeps_its_turn(rig: Rig) -> None:
    rig.assign("waits", 14, num_there=12)
    rig.half.assign("router-1", replace(assignment("other", 6, max_new_tokens=1), cache_salt="x"))
    assert rig.step() == [("other", 0, 6)]
    rig.half.assign("router-1", replace(assignment("later", 6, max_new_tokens=1), cache_salt="y"))
    rig.imports.on_fetched("waits", FetchEnd(3))
    assert rig.step() == [("waits", 12, 14), ("later", 0, 6)]


def test_refusal_has_the_prompt_computed_and_leaves_nothing_behind(rig: Rig) -> None:
    rig.assign("h", 14, num_there=12)
    rig.imports.on_fetched("h", FetchEnd(0, "gone"))
    assert rig.counts() == {BlockState.FREE: 16}
    assert rig.step() == [("h", 0, 14)]
    assert rig.imports.stats.num_failed == 1


def test_lost_fetch_has_the_prompt_computed_and_its_blocks_quarantined_until_it_is_over(rig: Rig) -> None:
    rig.assign("h", 14, num_there=12)
    rig.imports.on_fetch_lost("h", "no answer")
    assert rig.port.ends == [("h", SOURCE)]
    assert rig.step() == [("h", 0, 14)]
    assert rig.counts()[BlockState.QUARANTINED] == 3
    rig.imports.on_ended("h", is_over=False)
    rig.half.expire()
    assert len(rig.port.ends) == 1, "not at once"
    rig.clock.advance(ASK_AGAIN_S)
    rig.half.expire()
    rig.half.expire()
    assert len(rig.port.ends) == 2, "one question at a time"
    rig.imports.on_ended("h", is_over=True)
    assert BlockState.QUARANTINED not in rig.counts()
    assert rig.imports.num_inbound == 0
    assert rig.imports.stats.num_failed == 1


def test_prompt_does_not_wait_past_the_deadline_and_what_comes_later_is_of_use_to_others(rig: Rig) -> None:
    rig.assign("h", 14, num_there=12)
    rig.clock.advance(MIN_TIMEOUT_S)
    rig.half.expire()
    assert rig.step() == [("h", 0, 14)]
    assert rig.counts()[BlockState.LEASED] == 3, "the source may still write them"
    rig.assign("b", 18, num_there=16)
    assert len(rig.port.fetches) == 1, "a source that is late is not given more blocks"
    rig.imports.on_fetched("h", FetchEnd(3))
    assert (rig.imports.stats.num_failed, rig.imports.stats.num_tokens) == (1, 12)
    assert rig.imports.num_inbound == 0


@pytest.mark.parametrize("is_lost", [False, True])
@pytest.mark.parametrize("incarnation", [1, 2])
def test_source_that_is_gone_frees_its_blocks_and_its_late_words_say_nothing(
    rig: Rig, incarnation: int, is_lost: bool
) -> None:
    rig.assign("h", 14, num_there=12)
    if is_lost:
        rig.imports.on_fetch_lost("h", "no answer")
    for _ in range(2):
        rig.imports.worker_gone(WorkerId(SOURCE.worker.name, incarnation))
    assert rig.counts() == {BlockState.FREE: 16}
    assert rig.step() == [("h", 0, 14)]
    rig.imports.on_fetched("h", FetchEnd(3))
    rig.imports.on_fetch_lost("h", "no answer")
    rig.imports.on_ended("h", is_over=True)
    assert (rig.imports.stats.num_tokens, rig.imports.stats.num_failed) == (0, 1)


def test_other_workers_that_are_gone_change_nothing(rig: Rig) -> None:
    rig.assign("h", 14, num_there=12)
    for other in (OTHER.worker, WorkerId(SOURCE.worker.name, 0)):
        rig.imports.worker_gone(other)
    assert rig.imports.is_awaited("h")


def test_prompts_that_begin_alike_share_one_import(rig: Rig) -> None:
    rig.assign("a", 14, num_there=12)
    rig.assign("b", 22, num_there=16)
    assert len(rig.port.fetches) == 1
    rig.half.cancel("a")
    assert rig.imports.is_awaited("b")
    rig.imports.on_fetched("a", FetchEnd(3))
    assert rig.step() == [("b", 12, 22)]


def test_source_that_owes_an_answer_is_not_given_more_blocks() -> None:
    rig = Rig(pool=small_pool(32, BLOCK_TOKENS, enable_prefix_caching=True))
    rig.assign("a", 14, num_there=12)
    rig.imports.on_fetch_lost("a", "no answer")
    rig.assign("b", 18, num_there=16)
    assert len(rig.port.fetches) == 1
    rig.assign("c", 18, num_there=16, source=OTHER)
    assert len(rig.port.fetches) == 2
    rig.imports.on_ended("a", is_over=True)
    rig.assign("d", 30, num_there=28)
    assert not rig.imports.is_awaited("b")


def test_source_that_is_too_slow_is_asked_less_and_less(rig: Rig) -> None:
    """Each question costs a prompt the time that it waits in vain."""
    asked_s: list[float] = []
    for number in range(200):
        rig.assign(f"h{number}", 6, num_there=4, tenant=str(number))
        for fetch in rig.port.fetches:
            asked_s.append(rig.clock.now_s())
            rig.clock.advance(fetch.timeout_s)
            rig.half.expire()
            rig.imports.on_fetch_lost(fetch.fetch_id, "no answer")
            rig.imports.on_ended(fetch.fetch_id, is_over=True)
        rig.port.fetches.clear()
        rig.clock.advance(1.0)
        while rig.step():
            pass
    pauses_s = [later_s - earlier_s for earlier_s, later_s in pairwise(asked_s)]
    assert pauses_s == [FIRST_PAUSE_S * 2**n + MIN_TIMEOUT_S for n in range(len(pauses_s))]
    assert len(asked_s) == 5
    rig.assign("other", 6, num_there=4, source=OTHER)
    assert rig.imports.is_awaited("other")


def test_source_that_refuses_at_once_is_asked_again(rig: Rig) -> None:
    for name in "ab":
        rig.assign(name, 14, num_there=12, tenant=name)
        rig.imports.on_fetched(name, FetchEnd(0, "gone"))
    assert len(rig.port.fetches) == 2


def test_long_queue_leases_a_bounded_share_and_gets_its_prefixes_in_turn() -> None:
    rig = Rig(pool=small_pool(40, BLOCK_TOKENS, enable_prefix_caching=True))
    for name in "abcdef":
        rig.assign(name, 22, num_there=20, tenant=name)
    assert [fetch.fetch_id for fetch in rig.port.fetches] == ["a", "b"]
    assert rig.counts()[BlockState.LEASED] == MAX_POOL_SHARE * 40
    rig.imports.on_fetched("a", FetchEnd(5))
    rig.half.cancel("c")
    assert rig.step() == [("a", 20, 22), ("d", 0, 22), ("e", 0, 22), ("f", 0, 18)], "nobody waits who is put off"
    rig.half.expire()
    assert len(rig.port.fetches) == 2, "what is put off and starts is not fetched any more"


def test_import_that_was_put_off_begins_when_there_is_room_for_it() -> None:
    rig = Rig(pool=small_pool(40, BLOCK_TOKENS, enable_prefix_caching=True))
    for name in "abc":
        rig.assign(name, 22, num_there=20, tenant=name)
    rig.assign("like-c", 22, num_there=20, tenant="c")
    rig.assign("gone", 22, num_there=20, tenant="d", source=OTHER)
    rig.imports.worker_gone(OTHER.worker)
    for name in "ab":
        rig.imports.on_fetched(name, FetchEnd(5))
    rig.half.expire()
    assert [fetch.fetch_id for fetch in rig.port.fetches] == ["a", "b", "c"]
    assert rig.imports.is_awaited("c")
    assert rig.imports.is_awaited("like-c")


def test_only_import_may_be_of_any_size(rig: Rig) -> None:
    rig.assign("h", 42, num_there=40)
    assert rig.counts()[BlockState.LEASED] == 10


def test_without_room_nothing_is_fetched(rig: Rig) -> None:
    taken = rig.pool.blocks.try_allocate(14)
    assert taken is not None
    rig.assign("h", 14, num_there=12)
    assert rig.port.fetches == []
    rig.pool.blocks.release(taken)
    assert rig.step() == [("h", 0, 14)]


@pytest.mark.parametrize(("expected_s", "timeout_s"), [(0.0, MIN_TIMEOUT_S), (0.5, 2.0), (60.0, MAX_TIMEOUT_S)])
def test_patience_grows_with_the_prediction_within_bounds(rig: Rig, expected_s: float, timeout_s: float) -> None:
    rig.assign("h", 14, num_there=12, after_s=expected_s)
    assert rig.port.fetches[0].timeout_s == timeout_s


class Imports(RuleBasedStateMachine):
    """Prompts, answers and deaths in any order: no block is lost, and none that may be written is given away."""

    @initialize()
    def open(self) -> None:
        self.rig = Rig(pool=small_pool(32, BLOCK_TOKENS, enable_prefix_caching=True))
        self.num_works = 0
        self.unanswered: dict[str, PrefixFetch] = {}
        self.writable: dict[str, set[int]] = {}  # blocks that the source may still write, by fetch

    @rule(num_blocks=st.integers(0, 5), source=st.sampled_from([SOURCE, OTHER]), tenant=st.integers(0, 1))
    def assign(self, num_blocks: int, source: WorkerEndpoint, tenant: int) -> None:
        self.num_works += 1
        work = replace(
            assignment(f"h{self.num_works}", num_blocks * BLOCK_TOKENS + 2, max_new_tokens=1),
            prefix_source=PrefixSource(source, num_blocks * BLOCK_TOKENS, 0.1),
            cache_salt=str(tenant),
        )
        self.rig.half.assign("router-1", work)
        self.take_fetches()

    def take_fetches(self) -> None:
        for fetch in self.rig.port.fetches:
            self.unanswered[fetch.fetch_id] = fetch
            self.writable[fetch.fetch_id] = set(fetch.block_ids)
        self.rig.port.fetches.clear()

    @precondition(lambda self: self.num_works)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.rig.half.cancel(f"h{data.draw(st.integers(1, self.num_works))}")

    @precondition(lambda self: self.unanswered)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        fetch = self.unanswered.pop(data.draw(st.sampled_from(sorted(self.unanswered))))
        self.writable.pop(fetch.fetch_id, None)
        self.rig.imports.on_fetched(fetch.fetch_id, FetchEnd(data.draw(st.integers(0, len(fetch.block_ids)))))

    @precondition(lambda self: self.unanswered)
    @rule()
    def lose(self) -> None:
        self.rig.imports.on_fetch_lost(self.unanswered.popitem()[0], "no answer")

    @precondition(lambda self: self.rig.port.ends)
    @rule(is_over=st.booleans())
    def end(self, is_over: bool) -> None:
        fetch_id, _ = self.rig.port.ends.pop()
        if is_over:
            self.writable.pop(fetch_id, None)
        self.rig.imports.on_ended(fetch_id, is_over=is_over)

    @rule(source=st.sampled_from([SOURCE, OTHER]))
    def die(self, source: WorkerEndpoint) -> None:
        gone = [i.fetch_id for i in self.rig.imports._imports.values() if i.worker == source.worker]
        for fetch_id in gone:
            self.writable.pop(fetch_id)
        self.rig.imports.worker_gone(source.worker)

    @rule()
    def step(self) -> None:
        self.rig.clock.advance(ASK_AGAIN_S)
        self.rig.half.expire()
        self.take_fetches()
        self.rig.step()

    @invariant()
    def nothing_that_may_be_written_is_anybody_else_s(self) -> None:
        if not hasattr(self, "rig"):
            return
        self.rig.pool.check()
        blocks = self.rig.pool.blocks
        inbound = {block_id for block_ids in self.writable.values() for block_id in block_ids}
        assert len(inbound) == sum(map(len, self.writable.values())), "two sources write one block"
        for block_id in inbound:
            assert blocks.state_of(block_id) in (BlockState.LEASED, BlockState.QUARANTINED)
        assert not inbound & set(blocks._name_of), "what may be written has a name"
        assert self.rig.imports.num_inbound == len(self.writable)

    def teardown(self) -> None:
        if hasattr(self, "rig"):
            for source in (SOURCE, OTHER):
                self.rig.imports.worker_gone(source.worker)
            while self.rig.step():
                pass
            assert self.rig.half.is_idle
            assert self.rig.pool.blocks.num_free == self.rig.pool.num_blocks


Imports.TestCase.settings = settings(max_examples=120, stateful_step_count=30)
TestImports = Imports.TestCase
