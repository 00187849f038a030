import math
from collections import Counter
from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from core.cost import STEP_SHARE, Curve
from core.ids import WorkerId
from router.dispatch.placement import SAME_FULLNESS, SAME_STEP_TIME, DecodeCandidate, PrefillCandidate, place
from tests.builders import cost_model

PREFILL = [PrefillCandidate(WorkerId(f"p{i}", 1), pending_tokens=0, cost=cost_model()) for i in range(4)]
IDLE = DecodeCandidate(
    WorkerId("d0", 1),
    num_sequences=0,
    num_context_tokens=0,
    max_num_seqs=8,
    free_blocks=100,
    block_tokens=16,
    cost=cost_model(),
)
DECODE = [replace(IDLE, worker=WorkerId(f"d{i}", 1)) for i in range(4)]
costs = st.sampled_from([cost_model(), cost_model(slowness=1.04), cost_model(slowness=20.0)])

prefill_sets = st.lists(
    st.builds(
        PrefillCandidate,
        worker=st.integers(0, 9).map(lambda i: WorkerId(f"p{i}", 1)),
        pending_tokens=st.integers(0, 10_000),
        cost=costs,
        cached_tokens=st.integers(0, 400),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda c: c.worker,
)
decode_sets = st.lists(
    st.builds(
        DecodeCandidate,
        worker=st.integers(0, 9).map(lambda i: WorkerId(f"d{i}", 1)),
        num_sequences=st.integers(0, 8),
        num_context_tokens=st.integers(0, 10_000),
        max_num_seqs=st.integers(1, 8),
        free_blocks=st.integers(0, 20),
        block_tokens=st.just(16),
        cost=costs,
        present_tokens=st.integers(0, 400),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda c: c.worker,
)


@pytest.mark.parametrize(("prefill", "decode"), [([], DECODE), (PREFILL, []), ([], [])])
def test_missing_role_gives_none(prefill: list[PrefillCandidate], decode: list[DecodeCandidate]) -> None:
    assert place(prefill, decode, 10) is None


@given(prefill=prefill_sets, decode=decode_sets, num_tokens=st.integers(1, 400), data=st.data())
def test_choice_does_not_depend_on_the_order_of_candidates(
    prefill: list[PrefillCandidate], decode: list[DecodeCandidate], num_tokens: int, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(prefill)), data.draw(st.permutations(decode))
    assert place(*shuffled, num_tokens) == place(prefill, decode, num_tokens)


@given(prefill=prefill_sets, decode=decode_sets, num_tokens=st.integers(1, 400), data=st.data())
def test_avoided_worker_is_taken_only_when_all_are_avoided(
    prefill: list[PrefillCandidate], decode: list[DecodeCandidate], num_tokens: int, data: st.DataObject
) -> None:
    avoid = data.draw(st.sets(st.sampled_from([c.worker for c in (*prefill, *decode)])))
    chosen = place(prefill, decode, num_tokens, avoid)
    assert chosen is not None
    for worker, candidates in zip(chosen, (prefill, decode), strict=True):
        assert worker not in avoid or {c.worker for c in candidates} <= avoid


@given(prefill=prefill_sets, decode=decode_sets, num_tokens=st.integers(1, 400))
def test_prompt_is_predicted_to_be_done_first_where_it_goes(
    prefill: list[PrefillCandidate], decode: list[DecodeCandidate], num_tokens: int
) -> None:
    chosen = place(prefill, decode, num_tokens)
    assert chosen is not None
    times_s = {c.worker: c.completion_s(num_tokens) for c in prefill}
    assert times_s[chosen[0]] == min(times_s.values())


@given(prefill=prefill_sets, decode=decode_sets, num_tokens=st.integers(1, 400))
def test_full_decode_worker_is_chosen_only_when_all_are_full(
    prefill: list[PrefillCandidate], decode: list[DecodeCandidate], num_tokens: int
) -> None:
    chosen = place(prefill, decode, num_tokens)
    assert chosen is not None

    def has_room(candidate: DecodeCandidate) -> bool:
        num_blocks = math.ceil(num_tokens / candidate.block_tokens) + 1
        return candidate.num_sequences < candidate.max_num_seqs and num_blocks <= candidate.free_blocks

    if any(map(has_room, decode)):
        assert has_room(next(c for c in decode if c.worker == chosen[1]))


@pytest.mark.parametrize("num_requests", [4, 7, 32])
def test_burst_of_equal_prompts_spreads_evenly(num_requests: int) -> None:
    prefill, decode = list(PREFILL), list(DECODE)
    given: Counter[WorkerId] = Counter()
    for _ in range(num_requests):
        chosen = place(prefill, decode, 100)
        assert chosen is not None
        given.update(chosen)
        prefill = [replace(c, pending_tokens=c.pending_tokens + 100 * (c.worker in chosen)) for c in prefill]
        decode = [
            replace(c, num_sequences=c.num_sequences + 1, num_context_tokens=c.num_context_tokens + 100)
            if c.worker in chosen
            else c
            for c in decode
        ]
    for candidates in (prefill, decode):
        counts = [given[c.worker] for c in candidates]
        assert max(counts) - min(counts) <= 1


def test_faster_prefill_worker_gets_the_longer_queue() -> None:
    slow = PrefillCandidate(WorkerId("a-slow", 1), pending_tokens=1000, cost=cost_model(slowness=10.0))
    fast = PrefillCandidate(WorkerId("b-fast", 1), pending_tokens=4000, cost=cost_model())
    assert place([slow, fast], DECODE, 100) == (fast.worker, DECODE[0].worker)


def test_long_prompt_is_predicted_with_its_attention() -> None:
    """The slower one would win by tokens alone."""
    cost = replace(cost_model(), prefill_pair_s=1e-4)
    attends_slowly = PrefillCandidate(WorkerId("a", 1), pending_tokens=0, cost=cost)
    busy = PrefillCandidate(WorkerId("b", 1), pending_tokens=100, cost=cost_model())
    assert place([attends_slowly, busy], DECODE, 10) == (attends_slowly.worker, DECODE[0].worker)
    assert place([attends_slowly, busy], DECODE, 400) == (busy.worker, DECODE[0].worker)


def test_decode_worker_with_the_shortest_step_is_taken_though_its_batch_is_larger() -> None:
    slow = replace(IDLE, cost=cost_model(slowness=3.0))
    fast = replace(IDLE, worker=WorkerId("d1", 1), num_sequences=6)
    assert place(PREFILL, [slow, fast], 10) == (PREFILL[0].worker, fast.worker)


def test_decode_worker_with_long_contexts_is_left_alone() -> None:
    long = replace(IDLE, num_context_tokens=20_000)
    short = replace(IDLE, worker=WorkerId("d1", 1), num_sequences=4, num_context_tokens=4_000)
    assert place(PREFILL, [long, short], 10) == (PREFILL[0].worker, short.worker)


def test_step_times_closer_than_measurements_are_go_to_the_emptier_one() -> None:
    faster = replace(IDLE, num_sequences=1)
    emptier = replace(IDLE, worker=WorkerId("d1", 1), cost=cost_model(slowness=1.3))
    assert 1.15 * faster.step_s(10) < emptier.step_s(10) < SAME_STEP_TIME * faster.step_s(10)
    assert place(PREFILL, [faster, emptier], 10) == (PREFILL[0].worker, emptier.worker)


def test_equal_workers_are_taken_in_the_order_of_their_names() -> None:
    assert place(PREFILL[::-1], DECODE[::-1], 100) == (PREFILL[0].worker, DECODE[0].worker)


def test_prompt_goes_where_its_beginning_is_unless_the_queue_there_is_longer() -> None:
    plain, cached = PREFILL[0], replace(PREFILL[1], cached_tokens=300)
    assert place([plain, cached], DECODE, 400) == (cached.worker, DECODE[0].worker)
    busy = replace(cached, pending_tokens=400)
    assert place([plain, busy], DECODE, 400) == (plain.worker, DECODE[0].worker)


def test_prompt_that_is_cached_whole_still_computes_a_token() -> None:
    candidate = replace(PREFILL[0], cached_tokens=500)
    assert candidate.completion_s(400) == pytest.approx(cost_model().completion_s(0, 1, 399))


def test_sequence_goes_back_to_the_fuller_worker_that_has_its_earlier_turns() -> None:
    has_it = replace(IDLE, worker=WorkerId("d1", 1), num_sequences=1, present_tokens=200)
    assert place(PREFILL, [IDLE, has_it], 400) == (PREFILL[0].worker, has_it.worker)
    slow = replace(has_it, cost=cost_model(slowness=2.0))
    assert place(PREFILL, [IDLE, slow], 400) == (PREFILL[0].worker, IDLE.worker)
    full = replace(has_it, num_sequences=has_it.max_num_seqs)
    assert place(PREFILL, [IDLE, full], 400) == (PREFILL[0].worker, IDLE.worker)


@pytest.mark.parametrize("keeps_it", [True, False])
def test_burst_with_a_common_prompt_spreads_where_larger_batches_cost_nothing(*, keeps_it: bool) -> None:
    cost = replace(cost_model(), decode=Curve(((1.0, 0.01), (64.0, 0.01))), decode_context_token_s=0.0)
    decode = [replace(c, max_num_seqs=64, free_blocks=10_000, cost=cost) for c in DECODE]
    decode[2] = replace(decode[2], present_tokens=400)
    for _ in range(64):
        placed = place(PREFILL, decode, 400)
        assert placed is not None
        decode = [
            replace(c, num_sequences=c.num_sequences + 1, present_tokens=400 if keeps_it else c.present_tokens)
            if c.worker in placed
            else c
            for c in decode
        ]
    counts = [c.num_sequences for c in decode]
    assert max(counts) - min(counts) <= 64 * SAME_FULLNESS + 1


def test_short_common_beginning_decides_among_equals_only() -> None:
    has_little = replace(IDLE, worker=WorkerId("d1", 1), present_tokens=100)
    assert place(PREFILL, [IDLE, has_little], 400) == (PREFILL[0].worker, has_little.worker)
    fuller = replace(has_little, num_sequences=1)
    assert place(PREFILL, [IDLE, fuller], 400) == (PREFILL[0].worker, IDLE.worker)


def late_in(num_tokens: int, pending: list[int], wanted_in_s: float, latest_s: float = math.inf) -> str:
    prefill = [replace(candidate, pending_tokens=tokens) for candidate, tokens in zip(PREFILL, pending, strict=False)]
    chosen = place(prefill, DECODE, num_tokens, wanted_in_s=wanted_in_s, latest_s=latest_s)
    assert chosen is not None
    return chosen[0].name


def test_prompt_that_will_be_late_waits_where_most_is_late() -> None:
    assert late_in(100, [6000, 5000, 5500], wanted_in_s=3.0) == "p0"


@pytest.mark.parametrize(("latest_s", "chosen"), [(5.8, "p2"), (6.2, "p0"), (1.0, "p1")])
def test_late_prompt_goes_to_the_latest_worker_that_has_it_within_the_bound_or_to_the_soonest(
    latest_s: float, chosen: str
) -> None:
    assert late_in(100, [6000, 5000, 5500], wanted_in_s=3.0, latest_s=latest_s) == chosen


def test_prompt_that_can_be_in_time_goes_where_it_is_soonest() -> None:
    assert late_in(100, [6000, 2000, 5500], wanted_in_s=3.0) == "p1"


def test_prompt_that_is_late_by_itself_does_not_queue_behind_others() -> None:
    assert late_in(8000, [6000, 500, 5500], wanted_in_s=3.0) == "p1"


def test_late_prompt_avoids_workers_that_failed_it() -> None:
    prefill = [replace(PREFILL[0], pending_tokens=9000), replace(PREFILL[1], pending_tokens=5000)]
    chosen = place(prefill, DECODE, 100, {PREFILL[0].worker}, wanted_in_s=1.0)
    assert chosen is not None
    assert chosen[0] == PREFILL[1].worker


def test_prompt_waits_longer_for_a_worker_that_computes_beside_sequences() -> None:
    mixed = PrefillCandidate(WorkerId("a-mixed", 1), pending_tokens=0, cost=cost_model(), share=0.25)
    alone = PrefillCandidate(WorkerId("b", 1), pending_tokens=1000, cost=cost_model())
    assert mixed.completion_s(1000) == pytest.approx(4 * replace(mixed, share=1.0).completion_s(1000))
    assert replace(mixed, pending_tokens=1000).wait_s == pytest.approx(4 * alone.wait_s)
    assert place([mixed, alone], DECODE, 1000)[0] == alone.worker


def test_sequence_stays_with_the_mixed_worker_that_computes_its_prompt_within_the_limit() -> None:
    mixed = replace(IDLE, worker=WorkerId("m", 1), max_num_seqs=64, num_sequences=30, num_context_tokens=3000)
    prompt = PrefillCandidate(mixed.worker, pending_tokens=0, cost=cost_model(), share=0.5)
    decode = [*DECODE, mixed]
    step_s = mixed.step_s(100)
    assert place([prompt], decode, 100, tpot_limit_s=1.01 * step_s / STEP_SHARE) == (mixed.worker, mixed.worker)
    too_long = place([prompt], decode, 100, tpot_limit_s=0.99 * step_s / STEP_SHARE)
    assert too_long[1] != mixed.worker
    full = [*DECODE, replace(mixed, free_blocks=0)]
    assert place([prompt], full, 100)[1] != mixed.worker
