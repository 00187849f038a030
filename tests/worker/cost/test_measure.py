from collections import Counter
from pathlib import Path

import pytest

from core.clock import ManualClock
from core.cost import CostModel
from engine.engine import Engine
from engine.plan import SliceKind
from tests.builders import cost_model
from worker.cost.measure import BUDGET_S, MAX_RUNS, NUM_NEEDED, first_steps, measure_cost, probe_steps
from worker.cost.probe import ProbeStep

CHUNK = 100


class FakeRun:
    """Runs no steps: a clock moves by what a model predicts for them."""

    def __init__(self, model: CostModel) -> None:
        self.clock = ManualClock()
        self.steps: list[ProbeStep] = []
        self._model = model

    def __call__(self, step: ProbeStep) -> float:
        self.steps.append(step)
        step_s = self._model.step_s(step.shape)
        self.clock.advance(step_s)
        return step_s


def measure(engine: Engine, slowness: float) -> tuple[FakeRun, list[ProbeStep], CostModel]:
    run = FakeRun(cost_model(slowness, CHUNK))
    steps = probe_steps(engine, CHUNK, max_num_seqs=20, first_s=1.0)
    return run, steps, measure_cost(run, steps, CHUNK, run.clock)


def test_steps_fit_the_engine_and_reach_its_limits(engine: Engine) -> None:
    steps = probe_steps(engine, CHUNK, max_num_seqs=20, first_s=1.0)
    assert steps[:2] == list(first_steps(engine, CHUNK))
    assert all(step.fits(engine) for step in steps)
    assert len(set(steps)) == len(steps)
    sizes = {kind: {step.size for step in steps if step.kind is kind} for kind in SliceKind}
    assert sizes[SliceKind.PROMPT] == {1, 2, 8, 32, 100}
    assert sizes[SliceKind.DECODE] == {1, 2, 4, 8, 16, 20}
    assert {step.kind for step in steps if step.context} == {SliceKind.PROMPT, SliceKind.DECODE}
    assert {step.size for step in steps[:NUM_NEEDED]} >= {1, 20, 100}


@pytest.mark.parametrize(("first_s", "longest"), [(0.01, 100), (0.05, 64), (9.0, 32)])
def test_chunks_that_take_too_long_are_not_measured(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, first_s: float, longest: int
) -> None:
    monkeypatch.setattr("worker.cost.measure.MAX_FIRST_PROMPT", 32)
    monkeypatch.setattr("worker.cost.measure.MAX_STEP_S", 0.1)
    monkeypatch.setattr("worker.cost.measure.PROMPT_SIZES", (1, 32, 64))
    steps = probe_steps(engine, CHUNK, 4, first_s)
    assert max(step.size for step in steps if step.kind is SliceKind.PROMPT) == longest


@pytest.mark.parametrize(("first_s", "context"), [(1.0, 12), (0.001, 24)])
def test_fast_engine_is_measured_with_a_longer_context(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, first_s: float, context: int
) -> None:
    monkeypatch.setattr("worker.cost.measure.CONTEXTS", (24, 12))
    assert {step.context for step in probe_steps(engine, 64, 4, first_s)} == {0, context}


@pytest.mark.parametrize(("max_model_len", "chunk_tokens", "max_num_seqs"), [(2, 512, 1), (16, 1, 1), (128, 8, 64)])
def test_tightest_limits_still_give_both_kinds(
    tiny_model_dir: Path, max_model_len: int, chunk_tokens: int, max_num_seqs: int
) -> None:
    engine = Engine.load(tiny_model_dir, block_tokens=4, num_blocks=32, max_model_len=max_model_len)
    steps = probe_steps(engine, chunk_tokens, max_num_seqs, first_s=1.0)
    run = FakeRun(cost_model(chunk_tokens=chunk_tokens))
    model = measure_cost(run, steps, chunk_tokens, run.clock)
    assert model.prefill_s(1, 0.5) > 0
    assert model.decode_s(1, 1) > 0


def test_measured_model_predicts_the_steps_and_those_between(engine: Engine) -> None:
    truth = cost_model(chunk_tokens=CHUNK)
    _, steps, model = measure(engine, 1.0)
    for step in [*steps, ProbeStep(SliceKind.PROMPT, 60, 40), ProbeStep(SliceKind.DECODE, 12, 30)]:
        assert model.step_s(step.shape) == pytest.approx(truth.step_s(step.shape), rel=0.02)
    assert model.chunk_tokens == CHUNK


def test_fast_steps_are_repeated_a_bounded_number_of_times(engine: Engine) -> None:
    run, steps, _ = measure(engine, 0.001)
    expected = {step: MAX_RUNS + (step.context > 0) for step in steps}
    assert Counter(run.steps) == expected
    assert run.clock.now_s() < BUDGET_S


def test_measuring_ends_soon_after_its_budget(engine: Engine) -> None:
    run, steps, _ = measure(engine, 4.8)
    longest_s = max(cost_model(4.8).step_s(step.shape) for step in steps)
    assert NUM_NEEDED < len(set(run.steps)) < len(steps)
    assert BUDGET_S <= run.clock.now_s() <= BUDGET_S + longest_s


def test_slow_engine_is_measured_with_the_needed_steps_only(engine: Engine) -> None:
    run, steps, model = measure(engine, 1000.0)
    assert list(dict.fromkeys(run.steps)) == steps[:NUM_NEEDED]
    assert len({step.size for step in run.steps if step.kind is SliceKind.PROMPT}) == 2
    assert model.prefill_s(CHUNK, 0) > 2 * model.prefill_s(CHUNK // 4, 0)


def test_fastest_of_several_runs_counts(engine: Engine) -> None:
    truth, runs = FakeRun(cost_model(0.001, CHUNK)), Counter[ProbeStep]()

    def disturbed(step: ProbeStep) -> float:
        runs[step] += 1
        return truth(step) * (1 if runs[step] == 2 else 10)

    steps = probe_steps(engine, CHUNK, max_num_seqs=20, first_s=1.0)
    model = measure_cost(disturbed, steps, CHUNK, truth.clock)
    for step in steps:
        assert model.step_s(step.shape) == pytest.approx(cost_model(0.001).step_s(step.shape), rel=0.02)
