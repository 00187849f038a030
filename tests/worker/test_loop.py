from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from core.cost import MIN_PROMPT_TOKENS
from core.events import ReturnedWork, WorkerLoad
from core.request import FinishReason, Role
from decode_worker.receiver import LEASE_S
from engine.engine import Engine
from engine.plan import StepPlan, StepResult
from kvtransfer.sender import RENEWAL_S
from tests.builders import DECODE, PREFILL
from tests.engine.driver import Driver
from tests.oracles import greedy_tokens
from tests.worker.loops import BLOCK_TOKENS, EOS, ROUTER, LoopFleet, greedy
from worker.loop import HEARTBEAT_S, step_shape
from worker.pacemaker import MAX_WORK_S
from worker.report import StepReport

VOCAB = 160
NUM_NEW = 12


@pytest.fixture
def fleet(tiny_model_dir: Path) -> LoopFleet:
    return LoopFleet(tiny_model_dir)


def prompt_of(num_tokens: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(EOS + 1, VOCAB, (num_tokens,), generator=generator).tolist()


@pytest.mark.parametrize("num_tokens", [1, BLOCK_TOKENS, 50])
def test_handed_over_answer_is_that_of_transformers_and_of_one_engine(
    fleet: LoopFleet, tiny_model_dir: Path, num_tokens: int
) -> None:
    prompt = prompt_of(num_tokens)
    expected = greedy_tokens(tiny_model_dir, prompt, NUM_NEW)
    fleet.assign(greedy("h", prompt, NUM_NEW))
    fleet.run()
    assert fleet.answer("h") == expected

    alone = Driver(Engine.load(tiny_model_dir, block_tokens=BLOCK_TOKENS, num_blocks=64, max_model_len=256))
    assert alone.generate(alone.add("h", prompt), len(expected)) == expected
    assert fleet.is_free


def test_decode_worker_computes_no_prompt_token_and_prefill_worker_no_other(fleet: LoopFleet) -> None:
    fleet.assign(greedy("h", prompt_of(50), NUM_NEW))
    fleet.run()
    num_answer = len(fleet.answer("h"))
    assert num_answer > 2
    assert (fleet.p.engine.num_prompt_tokens, fleet.p.engine.num_decode_tokens) == (50, 0)
    assert (fleet.d.engine.num_prompt_tokens, fleet.d.engine.num_decode_tokens) == (0, num_answer - 1)


@pytest.mark.parametrize(
    ("role", "num_prompt_tokens"),
    [(Role.PREFILL, 20), (Role.MIXED, MIN_PROMPT_TOKENS), (Role.DECODE, MIN_PROMPT_TOKENS)],
)
def test_prompts_stretch_steps_past_the_limit_only_where_sequences_are_to_leave(
    tiny_model_dir: Path, role: Role, num_prompt_tokens: int
) -> None:
    fleet = LoopFleet(tiny_model_dir, budget=64, tpot_limit_s=0.01)
    here = {"prefill": DECODE, "decode": DECODE}
    fleet.assign(replace(greedy("h", prompt_of(8), 60), **here))
    while not fleet.d.engine.num_decode_tokens:
        fleet.tick()
    fleet.d.loop.begin_epoch(2, role, 0.0)
    fleet.assign(replace(greedy("long", prompt_of(100), 2), **here))
    before = fleet.d.engine.num_prompt_tokens
    fleet.tick()
    # A step of one sequence takes 12 ms, of which the prompt shares 10: twice that leaves 22 ms, or 20 tokens
    # with what they attend to.
    assert fleet.d.engine.num_prompt_tokens - before == num_prompt_tokens


@pytest.mark.parametrize("block", [0, 5, -1])
def test_answer_rests_on_the_transferred_blocks(fleet: LoopFleet, tiny_model_dir: Path, block: int) -> None:
    """One block of noise between the write and the join changes the answer; so the answer is read from there."""
    prompt = prompt_of(50)

    def corrupt(handoff_id: str, block_ids: list[int]) -> None:
        if handoff_id == "corrupted":
            assert len(block_ids) == 13
            fleet.d.pool.tensor[block_ids[block]].normal_(std=3.0)

    torch.manual_seed(0)
    fleet.p.port.before_commit = corrupt
    for name in ("whole", "corrupted"):
        fleet.assign(replace(greedy(name, prompt, NUM_NEW), cache_salt=name))
        fleet.run()
    expected = greedy_tokens(tiny_model_dir, prompt, NUM_NEW)
    assert fleet.answer("whole") == expected
    assert fleet.answer("corrupted") != expected
    assert fleet.answer("corrupted")[0] == expected[0]  # drawn by the prefill worker


def test_last_chunk_s_blocks_are_ordered_with_its_step(fleet: LoopFleet) -> None:
    """Chunks of 16: the target has answered before the second of four."""
    fleet.assign(greedy("h", prompt_of(50), NUM_NEW))
    fleet.run()
    assert fleet.p.port.awaited_steps == [4]
    pair = fleet.p.prefill.pairs[DECODE.worker]
    assert (pair.num_handoffs, pair.num_bytes) == (1, fleet.p.loop.load().handoff_bytes)


@pytest.mark.parametrize("block_tokens", [(4, 16), (16, 4), (8, 4)])
def test_answer_is_the_same_between_blocks_of_different_sizes(
    tiny_model_dir: Path, block_tokens: tuple[int, int]
) -> None:
    """The second prompt's beginning is at the target already, from the first one and its answer."""
    fleet = LoopFleet(tiny_model_dir, block_tokens=block_tokens)
    prompt = prompt_of(41)
    for name, tokens in (("first", prompt), ("second", [*prompt[:30], *prompt_of(23, 1)])):
        fleet.assign(greedy(name, tokens, NUM_NEW))
        fleet.run()
        assert fleet.answer(name) == greedy_tokens(tiny_model_dir, tokens, NUM_NEW)
    num_shared = 30 // block_tokens[1] * block_tokens[1]
    assert fleet.p.loop.load().handoff_bytes_saved == num_shared * fleet.d.pool.block_bytes // block_tokens[1]
    assert fleet.is_free


def test_live_source_keeps_its_leases(fleet: LoopFleet) -> None:
    """A prompt that takes minutes to compute."""
    fleet.assign(greedy("h", prompt_of(100), NUM_NEW))
    for _ in range(20):
        fleet.clock.advance(RENEWAL_S)
        fleet.tick()
    fleet.run()
    assert fleet.returned() == []
    assert len(fleet.answer("h")) > 0


def test_interleaved_requests_get_the_answers_they_would_get_alone(fleet: LoopFleet, tiny_model_dir: Path) -> None:
    works = {
        f"h{i}": greedy(f"h{i}", prompt_of(num_tokens, i), num_new)
        for i, (num_tokens, num_new) in enumerate(
            [(33, 9), (1, 20), (70, 3), (4, 1), (17, 14), (5, 2), (64, 20), (20, 7)]
        )
    }
    for work in works.values():
        fleet.assign(work)
        fleet.tick()
    assert fleet.d.decode.num_incoming + fleet.d.decode.num_running > 1
    fleet.run()
    assert fleet.returned() == []
    for name, work in works.items():
        assert fleet.answer(name) == greedy_tokens(tiny_model_dir, work.prompt, work.max_new_tokens), name
    assert fleet.is_free
    assert fleet.p.prefill.is_idle
    assert fleet.d.decode.num_running == fleet.d.decode.receiver.num_receiving == 0
    assert fleet.tokens("h3")[-1].finish_reason is FinishReason.LENGTH


def test_small_pools_and_batch_still_serve_everybody(tiny_model_dir: Path) -> None:
    fleet = LoopFleet(tiny_model_dir, num_blocks=24, max_num_seqs=2, budget=5, max_len=96)
    works = {f"h{i}": greedy(f"h{i}", prompt_of(11 + 9 * i, i), 4) for i in range(6)}
    for work in works.values():
        fleet.assign(work)
    fleet.run()
    assert fleet.returned() == []
    for name, work in works.items():
        assert fleet.answer(name) == greedy_tokens(tiny_model_dir, work.prompt, work.max_new_tokens), name
    assert fleet.is_free


def test_worker_with_both_halves_at_work_mixes_them_within_its_budget(
    tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the requests go one way, half the other: both workers compute prompts between their decode tokens."""
    budget = 6
    fleet = LoopFleet(tiny_model_dir, budget=budget, max_num_seqs=4)
    compute = fleet.d.engine.step
    steps: list[StepResult] = []

    def step(plan: StepPlan) -> StepResult:
        steps.append(compute(plan))
        return steps[-1]

    monkeypatch.setattr(fleet.d.engine, "step", step)
    works = [greedy(f"h{i}", prompt_of(10 + 7 * i, i), 20) for i in range(8)]
    works = [work if i % 2 else replace(work, prefill=DECODE, decode=PREFILL) for i, work in enumerate(works)]
    for work in works:
        fleet.assign(work)
    fleet.run()
    assert max(result.num_prompt_tokens + result.num_decode_tokens for result in steps) == budget
    assert any(result.num_prompt_tokens and result.num_decode_tokens for result in steps)
    for work in works:
        assert fleet.answer(work.handoff_id) == greedy_tokens(tiny_model_dir, work.prompt, 20), work.handoff_id
    assert fleet.is_free


def test_failed_step_gives_up_its_own_sequences_and_the_loop_goes_on(
    fleet: LoopFleet, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compute = fleet.p.engine.step

    def step(plan: StepPlan) -> StepResult:
        if any(piece.sequence_id == "bad" for piece in plan.slices):
            raise RuntimeError("out of memory")
        return compute(plan)

    monkeypatch.setattr(fleet.p.engine, "step", step)
    names = ("before", "bad", "after")
    prompts = {name: prompt_of(16, i) for i, name in enumerate(names)}  # a step each
    for name, prompt in prompts.items():
        fleet.assign(greedy(name, prompt, NUM_NEW))
    fleet.run()
    failure = "the engine failed in a step: out of memory"
    assert fleet.returned() == [ReturnedWork("bad", "internal_error", failure, retryable=False)]
    assert "an engine step failed" in caplog.text
    for name in ("before", "after"):
        assert fleet.answer(name) == greedy_tokens(tiny_model_dir, prompts[name], NUM_NEW)
    assert fleet.is_free


def test_failed_decode_step_gives_up_what_ran_and_frees(fleet: LoopFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(plan: StepPlan) -> StepResult:
        raise RuntimeError(f"{len(plan.slices)} slices are too many")

    for name in ("a", "b"):
        fleet.assign(greedy(name, prompt_of(8), NUM_NEW))
    monkeypatch.setattr(fleet.d.engine, "step", step)
    fleet.run()
    assert {(work.handoff_id, work.code, work.retryable) for work in fleet.returned()} == {
        (name, "internal_error", False) for name in ("a", "b")
    }
    assert fleet.is_free


def test_lost_router_ends_its_work_and_no_other(fleet: LoopFleet, tiny_model_dir: Path) -> None:
    prompt = prompt_of(40)
    fleet.assign(greedy("lost", prompt_of(60), NUM_NEW), router_id="router-2")
    fleet.assign(greedy("kept", prompt, NUM_NEW))
    for _ in range(3):  # of the four that the long prompt takes
        fleet.tick()
    for worker, half in ((fleet.p, fleet.p.prefill), (fleet.d, fleet.d.decode)):
        worker.mailbox.post(partial(half.drop_router, "router-2"))
    fleet.run()
    assert fleet.answer("kept") == greedy_tokens(tiny_model_dir, prompt, NUM_NEW)
    assert fleet.tokens("lost", "router-2") == []
    assert fleet.is_free


def test_idle_worker_says_that_it_lives_once_per_heartbeat(fleet: LoopFleet) -> None:
    fleet.p.tick()
    assert fleet.p.published == []
    for _ in range(3):
        fleet.clock.advance(HEARTBEAT_S)
        fleet.p.tick()
        fleet.p.tick()
    assert [reports for reports, _ in fleet.p.published] == [{}] * 3
    assert fleet.p.published[0][1].blocks_free == fleet.p.pool.num_blocks


def test_step_with_tokens_is_published_at_once_and_counts_as_a_heartbeat(fleet: LoopFleet) -> None:
    fleet.clock.advance(HEARTBEAT_S * 0.9)
    fleet.assign(greedy("h", prompt_of(4), 1))
    fleet.p.tick()
    fleet.clock.advance(HEARTBEAT_S * 0.5)
    fleet.p.tick()
    ((reports, _),) = fleet.p.published
    assert set(reports) == {ROUTER}


def test_load_counts_what_is_there(fleet: LoopFleet) -> None:
    fleet.assign(greedy("a", prompt_of(24), NUM_NEW))
    fleet.assign(greedy("b", prompt_of(10, 1), NUM_NEW))
    fleet.p.tick()
    load = fleet.p.loop.load()
    assert (load.queued_prompts, load.pending_prompt_tokens, load.blocks_running) == (1, 24 - 16 + 10, 6)
    assert (load.blocks_total, load.blocks_free, load.steps) == (256, 250, 1)
    assert (load.prompt_tokens_computed, load.decode_tokens_computed) == (16, 0)
    fleet.d.tick()
    load = fleet.d.loop.load()
    assert (load.incoming_handoffs, load.running_sequences, load.blocks_leased) == (2, 0, 6)
    assert fleet.d.inbound == [1]

    fleet.run()
    sent, received = fleet.p.loop.load(), fleet.d.loop.load()
    assert (sent.handoffs_sent, received.handoffs_received) == (2, 2)
    assert sent.handoff_bytes == (6 + 3) * fleet.p.pool.layout.block_bytes
    assert sent.prompt_tokens_computed == 34
    assert received.decode_tokens_computed == sum(len(fleet.answer(name)) - 1 for name in "ab")
    assert fleet.d.inbound[-1] == 0
    quiet = (received.incoming_handoffs, received.running_sequences, received.blocks_leased, received.blocks_running)
    assert quiet == (0, 0, 0, 0)
    assert received.running_context_tokens == 0
    assert sent.prefill_cost_error == received.decode_cost_error == 0.0  # no time passes on a manual clock
    assert isinstance(received, WorkerLoad)


def test_inbound_is_told_before_the_step_computes(fleet: LoopFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source writes as soon as it hears of its blocks; the mover must help while the engine computes."""
    told_at_step: list[list[int]] = []
    compute = fleet.d.engine.step

    def step(plan: StepPlan) -> StepResult:
        told_at_step.append(list(fleet.d.inbound))
        return compute(plan)

    monkeypatch.setattr(fleet.d.engine, "step", step)
    fleet.assign(greedy("running", prompt_of(4), NUM_NEW))
    while not fleet.d.decode.num_running:
        fleet.tick()
    told_at_step.clear()
    fleet.d.inbound.clear()
    fleet.assign(greedy("next", prompt_of(30), NUM_NEW))
    fleet.p.tick()
    assert fleet.d.tick()
    assert told_at_step == [[1]]


def test_stop_ends_run_after_what_was_posted_before(fleet: LoopFleet) -> None:
    fleet.assign(greedy("h", prompt_of(4), 1))
    fleet.p.loop.stop()
    fleet.p.loop.run()
    assert len(fleet.tokens("h")) == 1


def test_running_sequences_report_the_tokens_they_attend_to(fleet: LoopFleet) -> None:
    fleet.assign(greedy("a", prompt_of(9), NUM_NEW))
    while not fleet.d.decode.num_running:
        fleet.tick()
    (sequence,) = fleet.d.decode._batch.running.values()
    assert fleet.d.loop.load().running_context_tokens == 9 + len(sequence.tokens)
    fleet.d.tick()
    assert fleet.d.loop.load().running_context_tokens == 9 + len(sequence.tokens)


def test_slower_steps_change_the_cost_that_is_reported(fleet: LoopFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    compute, cost = fleet.d.engine.step, fleet.d.loop._cost.model

    def step(plan: StepPlan) -> StepResult:
        fleet.clock.advance(3 * cost.step_s(step_shape((), plan.slices)))
        return compute(plan)

    monkeypatch.setattr(fleet.d.engine, "step", step)
    fleet.assign(greedy("a", prompt_of(9), 60))
    fleet.run()
    load = fleet.d.loop.load()
    assert cost.changed(load.cost_change).decode_s(1, 40) == pytest.approx(3 * cost.decode_s(1, 40), rel=0.05)
    assert load.decode_cost_error < 0.05
    assert (load.prefill_cost_change, load.prefill_cost_error) == (0.0, 0.0)


def test_source_keeps_its_leases_while_a_step_takes_long(fleet: LoopFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target's loop goes on meanwhile, and looks at its deadlines."""
    compute = fleet.p.engine.step

    def step_slowly(plan: StepPlan) -> StepResult:
        for _ in range(10):
            fleet.clock.advance(RENEWAL_S)
            fleet.p.loop._pacemaker.tick()
            fleet.d.tick()
        return compute(plan)

    fleet.assign(greedy("h", prompt_of(100), NUM_NEW))
    for _ in range(3):
        fleet.tick()
    assert fleet.d.decode.receiver.num_receiving == 1
    with monkeypatch.context() as patch:
        patch.setattr(fleet.p.engine, "step", step_slowly)
        fleet.tick()
    fleet.run()
    assert fleet.returned() == []
    assert len(fleet.answer("h")) > 0


def test_loop_that_never_comes_back_loses_its_leases(fleet: LoopFleet) -> None:
    fleet.assign(greedy("h", prompt_of(100), NUM_NEW))
    for _ in range(3):
        fleet.tick()
    with fleet.p.loop.keep_alive():
        while fleet.clock.now_s() < MAX_WORK_S + LEASE_S:
            assert fleet.d.decode.receiver.num_receiving == 1
            fleet.clock.advance(RENEWAL_S)
            fleet.p.loop._pacemaker.tick()
            fleet.d.tick()
    assert [work.code for work in fleet.returned()] == ["lease_expired"]


def test_worker_says_that_it_lives_while_a_step_takes_long(fleet: LoopFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread would beat by itself; here the step makes the time pass."""
    compute, published = fleet.p.engine.step, fleet.p.published
    during: list[tuple[dict[str, StepReport], WorkerLoad]] = []

    def step_slowly(plan: StepPlan) -> StepResult:
        num_before = len(published)
        fleet.clock.advance(2 * HEARTBEAT_S)
        fleet.p.loop._pacemaker.tick()
        during.extend(published[num_before:])
        return compute(plan)

    fleet.tick()  # says its load
    monkeypatch.setattr(fleet.p.engine, "step", step_slowly)
    fleet.assign(greedy("h", range(3, 30), 1))
    fleet.run()
    assert len(during) == fleet.p.engine.num_steps == 2
    assert during[0] == ({}, published[0][1])
    num_published = len(published)
    fleet.p.loop._pacemaker.tick()
    assert len(published) == num_published
