"""Whole workers with prefixes in common: whatever was found instead of computed, the answer is transformers'."""

from dataclasses import replace
from pathlib import Path

import pytest

from core.request import Assignment
from tests.builders import DECODE, PREFILL
from tests.oracles import greedy_tokens
from tests.worker.loops import BLOCK_TOKENS, LoopFleet, greedy
from tests.worker.test_loop import prompt_of

NUM_NEW = 8
PREFIX = prompt_of(40)
QUESTION = prompt_of(9, seed=1)
PROMPT = [*PREFIX, *QUESTION]  # 12 full blocks and a token


@pytest.fixture
def fleet(tiny_model_dir: Path) -> LoopFleet:
    return LoopFleet(tiny_model_dir)


def cached_tokens(fleet: LoopFleet, handoff_id: str) -> int:
    first, *others = fleet.tokens(handoff_id)
    assert all(event.cached_tokens == 0 for event in others)
    return first.cached_tokens


def check(fleet: LoopFleet, model_dir: Path, work: Assignment) -> int:
    """The answer is the one it would be without any cache; returns the tokens that were found."""
    assert fleet.returned() == []
    assert fleet.answer(work.handoff_id) == greedy_tokens(model_dir, work.prompt, work.max_new_tokens)
    assert fleet.is_free
    return cached_tokens(fleet, work.handoff_id)


def serve(fleet: LoopFleet, model_dir: Path, work: Assignment) -> int:
    fleet.assign(work)
    fleet.run()
    return check(fleet, model_dir, work)


def test_warm_prompt_gives_the_tokens_of_the_cold_one_and_is_not_computed(
    fleet: LoopFleet, tiny_model_dir: Path
) -> None:
    assert serve(fleet, tiny_model_dir, greedy("cold", PROMPT, NUM_NEW)) == 0
    computed, sent = fleet.p.engine.num_prompt_tokens, fleet.p.prefill.stats.num_bytes
    assert serve(fleet, tiny_model_dir, greedy("warm", PROMPT, NUM_NEW)) == 48
    assert fleet.p.engine.num_prompt_tokens - computed == 1
    block_bytes = fleet.p.pool.layout.block_bytes
    assert fleet.p.prefill.stats.num_bytes - sent == block_bytes  # the last one, which is not full
    load = fleet.p.loop.load()
    assert (load.prefix_query_tokens, load.prefix_hit_tokens) == (98, 48)
    assert load.handoff_bytes_saved == 12 * block_bytes
    assert (load.blocks_cached, load.blocks_free) == (12, 244)


def test_prompt_that_fills_its_blocks_still_computes_the_last_one(fleet: LoopFleet, tiny_model_dir: Path) -> None:
    for name, expected in (("cold", 0), ("warm", 36)):
        assert serve(fleet, tiny_model_dir, greedy(name, PREFIX, NUM_NEW)) == expected
    assert fleet.p.loop.load().handoff_bytes_saved == 10 * fleet.p.pool.layout.block_bytes


def test_prompts_that_begin_alike_share_the_beginning(fleet: LoopFleet, tiny_model_dir: Path) -> None:
    serve(fleet, tiny_model_dir, greedy("first", PROMPT, NUM_NEW))
    assert serve(fleet, tiny_model_dir, greedy("second", [*PREFIX, *prompt_of(20, seed=2)], NUM_NEW)) == 40


def test_other_salt_shares_nothing(fleet: LoopFleet, tiny_model_dir: Path) -> None:
    for name, salt, expected in (("a", "", 0), ("b", "x", 0), ("c", "y", 0), ("d", "x", 48)):
        work = replace(greedy(name, PROMPT, NUM_NEW), cache_salt=salt)
        assert serve(fleet, tiny_model_dir, work) == expected
    assert fleet.d.pool.blocks.counts()["cached"] >= 3 * 12


def test_prompt_under_way_is_shared_by_those_that_come_meanwhile(fleet: LoopFleet, tiny_model_dir: Path) -> None:
    works = [greedy(f"h{i}", [*PREFIX, *prompt_of(5 + i, seed=i)], NUM_NEW) for i in range(3)]
    for work in works:
        fleet.assign(work)
        fleet.p.tick()  # a chunk of 16 tokens
    fleet.run()
    found = [check(fleet, tiny_model_dir, work) for work in works]
    assert found == [0, 37, 40]  # the second's first three tokens fitted into the step of the first's last ones
    assert fleet.p.engine.num_prompt_tokens == sum(len(work.prompt) for work in works) - sum(found)


def test_prompts_computed_in_the_same_steps_are_kept_once(tiny_model_dir: Path) -> None:
    fleet = LoopFleet(tiny_model_dir, budget=256)
    works = [greedy(f"h{i}", PROMPT, NUM_NEW) for i in range(3)]
    for work in works:
        fleet.assign(work)
    fleet.run()
    assert [check(fleet, tiny_model_dir, work) for work in works] == [0, 0, 0]
    assert fleet.p.pool.blocks.counts()["cached"] == 12


def test_partly_evicted_prompt_is_computed_from_where_it_ends(tiny_model_dir: Path) -> None:
    fleet = LoopFleet(tiny_model_dir, num_blocks=24, max_len=96)
    serve(fleet, tiny_model_dir, greedy("first", PROMPT, NUM_NEW))
    serve(fleet, tiny_model_dir, greedy("other", prompt_of(60, seed=3), NUM_NEW))
    found = serve(fleet, tiny_model_dir, greedy("again", PROMPT, NUM_NEW))
    assert 0 < found < 48
    assert fleet.p.loop.load().blocks_evicted > 0


@pytest.mark.parametrize("copies", [100, 2])
def test_evicted_prompt_comes_back_from_host_memory(tiny_model_dir: Path, copies: int) -> None:
    fleet = LoopFleet(tiny_model_dir, num_blocks=24, num_host_blocks=64, max_len=96)
    for worker in (fleet.p, fleet.d):
        assert worker.pool.host is not None
        worker.pool.host._max_copies = copies
    serve(fleet, tiny_model_dir, greedy("first", PROMPT, NUM_NEW))
    for tokens_taken in (16, 48, 80):  # evicted a little at a time, so that even a small budget saves everything
        serve(fleet, tiny_model_dir, greedy(f"other-{tokens_taken}", prompt_of(tokens_taken, seed=3), 2))
    before = fleet.p.loop.load()
    assert before.host_blocks > 0
    found = serve(fleet, tiny_model_dir, greedy("again", PROMPT, NUM_NEW))
    after = fleet.p.loop.load()
    assert after.host_blocks_restored > 0
    assert found >= 4 * after.host_blocks_restored
    if copies == 100:
        assert (found, before.host_blocks_dropped) == (48, 0)


def test_blocks_that_come_back_do_not_wait_for_other_work(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle loop would sleep until its next heartbeat between two steps' copies."""
    fleet = LoopFleet(tiny_model_dir, num_blocks=24, num_host_blocks=64, max_len=96)
    serve(fleet, tiny_model_dir, greedy("first", PROMPT, NUM_NEW))
    serve(fleet, tiny_model_dir, greedy("other", prompt_of(90, seed=3), 2))
    assert fleet.p.pool.host is not None
    fleet.p.pool.host._max_copies = 1
    waits: list[float] = []
    receive = fleet.p.mailbox.receive
    monkeypatch.setattr(fleet.p.mailbox, "receive", lambda wait_s: waits.append(wait_s) or receive(0.0))
    fleet.assign(greedy("again", PROMPT, NUM_NEW))
    restored = fleet.p.pool.host.num_restored
    fleet.p.loop.tick(1.0)
    while fleet.p.prefill.is_awaiting_host:
        fleet.p.loop.tick(1.0)
    assert fleet.p.pool.host.num_restored - restored > 2
    assert set(waits[1:]) == {0.0}


def test_next_turn_on_the_worker_that_answered_finds_prompt_and_answer(
    fleet: LoopFleet, tiny_model_dir: Path
) -> None:
    """After a change of role, or when a preempted sequence is placed there."""
    serve(fleet, tiny_model_dir, greedy("turn-1", PROMPT, NUM_NEW))
    answer = fleet.answer("turn-1")
    prompt = [*PROMPT, *answer, *QUESTION]
    num_final = len(PROMPT) + len(answer) - 1  # the last token of an answer is never computed
    turned = replace(greedy("turn-2", prompt, NUM_NEW), prefill=DECODE, decode=PREFILL)
    assert serve(fleet, tiny_model_dir, turned) == num_final // BLOCK_TOKENS * BLOCK_TOKENS
    assert fleet.d.prefill.stats.num_bytes_saved == 12 * fleet.d.pool.layout.block_bytes


def test_preempted_sequence_resumes_from_its_blocks(tiny_model_dir: Path) -> None:
    fleet = LoopFleet(tiny_model_dir, num_blocks=20, max_len=80)
    works = [greedy(name, prompt_of(30, seed), 30) for seed, name in enumerate(("kept", "preempted"))]
    for work in works:
        fleet.assign(work)
    fleet.run()
    (returned,) = fleet.returned()
    assert (returned.handoff_id, returned.code) == ("preempted", "preempted")
    got = [event.token_id for event in fleet.tokens("preempted")]
    expected = greedy_tokens(tiny_model_dir, works[1].prompt, 30)
    assert got == expected[: len(got)]

    saved = fleet.p.prefill.stats.num_bytes_saved
    resumed = replace(greedy("resumed", [*works[1].prompt, *got], 30 - len(got)), first_position=0)
    fleet.assign(resumed)
    fleet.run()
    assert fleet.answer("resumed") == expected[len(got) :]
    assert cached_tokens(fleet, "resumed") > 0
    assert fleet.p.prefill.stats.num_bytes_saved > saved
