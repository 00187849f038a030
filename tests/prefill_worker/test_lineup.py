"""Which prompts get the next chunks; what becomes of them is in `test_half`."""

from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from core.clock import ManualClock
from core.fair_line import Turn
from core.fairness import ANSWER_WEIGHT
from engine.kv.block_table import BlockTable
from engine.kv.pool import BlockPool
from prefill_worker.lineup import Lineup
from prefill_worker.prefix_importer import PrefixImporter
from prefill_worker.prompt import Prompt
from tests.builders import assignment, small_pool

BLOCK_TOKENS = 4
BUDGET = 16


class Bench:
    """A lineup whose chunks are computed as soon as they are planned.

    Attributes:
        served: prompt tokens computed, by tenant.
    """

    def __init__(self, num_blocks: int = 4096) -> None:
        self.pool: BlockPool = small_pool(num_blocks, BLOCK_TOKENS)
        self.lineup = Lineup(self.pool, PrefixImporter(self.pool, ManualClock()), on_start=lambda _: None)
        self.served: dict[str, int] = {}
        self._num_added = 0

    def add(self, num_tokens: int, tenant: str = "", priority: int = 0, answer_tokens: int = 0) -> str:
        handoff_id = f"{tenant}{self._num_added}"
        self._num_added += 1
        work = replace(
            assignment(handoff_id, num_tokens), tenant=tenant, priority=priority, tenant_answer_tokens=answer_tokens
        )
        self.lineup.add(Prompt.of(work, "router", BlockTable(self.pool, "", work.prompt)))
        return handoff_id

    def step(self, budget: int = BUDGET) -> list[tuple[str, int]]:
        """What a step computes: handoff ids and numbers of tokens."""
        chunks = list(self.lineup.chunks(budget))
        for prompt, chunk in chunks:
            num_tokens = len(chunk.token_ids)
            tenant = prompt.assignment.tenant
            self.served[tenant] = self.served.get(tenant, 0) + num_tokens
            prompt.num_computed = chunk.end
            if not prompt.num_remaining:
                self.lineup.remove(prompt)
                prompt.table.release()
        return [(prompt.handoff_id, len(chunk.token_ids)) for prompt, chunk in chunks]

    def turns(self) -> dict[str, Turn]:
        """Of the prompts that are not computed, by handoff id."""
        prompts = (*self.lineup.queued, *self.lineup.computing.values())
        return {prompt.handoff_id: prompt.assignment.turn for prompt in prompts}

    def backlogged(self) -> set[str]:
        return {tenant for _, tenant in self.turns().values()}

    def until_empty(self) -> list[str]:
        """Handoff ids in the order of their last chunk."""
        ended = []
        while not self.lineup.is_empty:
            before = {prompt.handoff_id for prompt in (*self.lineup.queued, *self.lineup.computing.values())}
            chunks = self.step()
            assert chunks, "a step computes nothing although prompts wait"
            after = {prompt.handoff_id for prompt in (*self.lineup.queued, *self.lineup.computing.values())}
            ended += [handoff_id for handoff_id, _ in chunks if handoff_id in before - after]
        return ended


# --- order


def test_short_prompts_of_one_tenant_are_not_kept_by_a_long_one_of_another() -> None:
    bench = Bench()
    long = bench.add(100 * BUDGET, "a")
    assert bench.step() == [(long, BUDGET)]
    short = [bench.add(BUDGET // 2, "b") for _ in range(4)]
    assert bench.step() == [(long, BUDGET)]  # of equals the one that has started
    assert [bench.step() for _ in range(3)] == [
        [(short[0], 8), (short[1], 8)],
        [(long, BUDGET)],
        [(short[2], 8), (short[3], 8)],
    ]


def test_higher_priority_goes_before_a_prompt_that_has_started() -> None:
    bench = Bench()
    normal = bench.add(3 * BUDGET)
    bench.step()
    urgent, later = bench.add(2 * BUDGET, priority=-1), bench.add(8, priority=1)
    assert bench.until_empty() == [urgent, normal, later]


def test_answers_said_to_be_served_put_a_tenant_back() -> None:
    bench = Bench()
    bench.add(10 * BUDGET, "a")
    bench.step()
    bench.add(10 * BUDGET, "b", answer_tokens=2 * BUDGET // ANSWER_WEIGHT)
    assert [bench.step()[0][0] for _ in range(3)] == ["a0", "a0", "b1"]


def test_tenant_back_from_idle_has_saved_up_nothing() -> None:
    bench = Bench()
    bench.add(20 * BUDGET, "a")
    for _ in range(10):
        bench.step()
    bench.add(20 * BUDGET, "b")
    for _ in range(10):
        bench.step()
    assert bench.served == {"a": 15 * BUDGET, "b": 5 * BUDGET}


def test_prompt_whose_turn_it_is_starts_however_many_long_ones_have_started() -> None:
    bench = Bench()
    for tenant in "abcdefg":
        bench.add(100 * BUDGET, tenant, priority=1)
        bench.step()
    late, urgent = bench.add(BUDGET // 4, "late", priority=1), bench.add(3 * BUDGET, "a")
    assert [bench.step() for _ in range(3)] == [[(urgent, BUDGET)]] * 3
    assert (late, BUDGET // 4) in [chunk for _ in range(8) for chunk in bench.step()]


def test_one_prompt_of_a_tenant_and_priority_is_started_at_a_time() -> None:
    bench = Bench()
    for tenant in "aab":
        bench.add(4 * BUDGET, tenant)
    for _ in range(6):
        bench.step()
        assert len(bench.lineup.computing) <= 2
    bench.until_empty()


def test_prompt_whose_turn_it_is_and_that_finds_no_room_lets_started_ones_go_on_and_no_others_start() -> None:
    bench = Bench(num_blocks=16)
    started = bench.add(12 * BLOCK_TOKENS, "a")
    bench.step()
    large, small = bench.add(16 * BLOCK_TOKENS, "b"), bench.add(BLOCK_TOKENS, "c", priority=1)
    assert bench.step() == [(started, BUDGET)]
    assert bench.until_empty() == [started, large, small]


def test_next_chunk_knows_how_much_of_its_prompt_is_computed() -> None:
    bench = Bench()
    assert bench.lineup.num_before == 0
    bench.add(4 * BUDGET, "a")
    bench.step()
    assert bench.lineup.num_before == BUDGET
    bench.add(4 * BUDGET, "b", priority=-1)
    assert bench.lineup.num_before == 0


@pytest.mark.parametrize("num_waiting", [0, 1])
def test_prompt_that_leaves_is_not_computed_any_more(num_waiting: int) -> None:
    bench = Bench()
    bench.add(4 * BUDGET)
    if not num_waiting:
        bench.step()
    prompt = next(iter((*bench.lineup.computing.values(), *bench.lineup.queued)))
    bench.lineup.remove(prompt)
    bench.lineup.remove(prompt)
    assert bench.lineup.is_empty
    assert bench.step() == []


# --- properties

tenants = st.sampled_from("abc")
many_tenants = st.sampled_from("abcdefgh")
arrivals = st.lists(st.tuples(many_tenants, st.integers(1, 6 * BUDGET)), max_size=8)
ranked_arrivals = st.lists(st.tuples(many_tenants, st.integers(-2, 2), st.integers(1, 6 * BUDGET)), max_size=8)


@given(rounds=st.lists(arrivals, min_size=1, max_size=25))
@settings(max_examples=60, deadline=None)
def test_steps_are_full_and_counters_of_backlogged_tenants_stay_within_one_step(
    rounds: list[list[tuple[str, int]]],
) -> None:
    """What is served at one go is a chunk: the paper's bounds, with the budget of a step for the longest prompt."""
    bench = Bench()
    since: dict[str, dict[str, int]] = {}  # by tenant that has been backlogged since: what each had been served then
    for arriving in rounds:
        for tenant, num_tokens in arriving:
            bench.add(num_tokens, tenant)
        for tenant in bench.backlogged():
            since.setdefault(tenant, dict(bench.served))
        pending = bench.lineup.num_pending_tokens
        assert sum(num_tokens for _, num_tokens in bench.step()) == min(BUDGET, pending)
        here = bench.backlogged()
        since = {tenant: served for tenant, served in since.items() if tenant in here}
        counters = [bench.lineup._counters.of(tenant) for tenant in here]
        assert max(counters, default=0) - min(counters, default=0) <= BUDGET
        for tenant, served in since.items():
            for other in since:
                start = max(served, since[other], key=lambda totals: sum(totals.values()))
                gains = [bench.served.get(each, 0) - start.get(each, 0) for each in (tenant, other)]
                assert abs(gains[0] - gains[1]) <= 2 * BUDGET


@given(rounds=st.lists(ranked_arrivals, min_size=1, max_size=25))
@settings(max_examples=60, deadline=None)
def test_steps_compute_the_highest_priorities_and_of_each_the_tenants_that_were_served_least(
    rounds: list[list[tuple[str, int, int]]],
) -> None:
    bench = Bench()
    for arriving in rounds:
        for tenant, priority, num_tokens in arriving:
            bench.add(num_tokens, tenant, priority)
        counters = {tenant: bench.lineup._counters.of(tenant) for tenant in bench.backlogged()}
        before = bench.turns()
        computed = {before[handoff_id] for handoff_id, _ in bench.step()}
        waiting = set(bench.turns().values())
        for priority, tenant in computed:
            assert all(priority <= passed for passed, _ in waiting)
            passed = [counters[other] for other_priority, other in waiting if other_priority == priority]
            assert counters[tenant] <= min(passed, default=counters[tenant]) + BUDGET


@given(
    waiting=st.lists(st.tuples(tenants, st.integers(1, 4 * BUDGET)), min_size=1, max_size=8),
    coming=st.lists(st.tuples(tenants, st.integers(1, BUDGET)), min_size=1, max_size=4),
)
@settings(max_examples=40, deadline=None)
def test_nobody_starves_within_a_priority_while_others_keep_coming(
    waiting: list[tuple[str, int]], coming: list[tuple[str, int]]
) -> None:
    bench = Bench(num_blocks=100_000)
    watched = {bench.add(num_tokens, tenant) for tenant, num_tokens in waiting}
    total = sum(num_tokens for _, num_tokens in waiting)
    for _ in range(4 * (3 * total // BUDGET + len(watched) + 1)):  # each of three tenants at most as much, and more
        for tenant, num_tokens in coming:
            bench.add(num_tokens, tenant)
        bench.step()
        prompts = (*bench.lineup.queued, *bench.lineup.computing.values())
        if watched.isdisjoint(prompt.handoff_id for prompt in prompts):
            return
    raise AssertionError(f"{watched} are still here")
