import logging
from pathlib import Path

import pytest

from engine.engine import Engine
from worker.cost import startup
from worker.cost.cache import CostKey, load_cost, save_cost
from worker.cost.measure import first_steps
from worker.cost.probe import ProbeStep
from worker.cost.startup import MAX_FACTOR, start_cost, still_holds

CHUNK, MAX_NUM_SEQS = 16, 4


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    caplog.set_level(logging.INFO)


@pytest.fixture
def run_steps(monkeypatch: pytest.MonkeyPatch) -> list[ProbeStep]:
    """Every step that is run; each takes a millisecond a token or sequence."""
    steps: list[ProbeStep] = []

    def run(_engine: Engine, step: ProbeStep) -> float:
        steps.append(step)
        return step.size / 1000

    monkeypatch.setattr(startup, "time_step", run)
    return steps


def test_first_start_measures_and_the_second_only_checks(engine: Engine, run_steps: list[ProbeStep]) -> None:
    first = start_cost(engine, CHUNK, MAX_NUM_SEQS)
    assert first.prefill_s(CHUNK, 0) == pytest.approx(CHUNK / 1000)
    run_steps.clear()
    assert start_cost(engine, CHUNK, MAX_NUM_SEQS) == first
    assert run_steps == [*first_steps(engine, CHUNK)] * 2  # once to warm up, once to check


def test_cached_model_that_does_not_hold_is_measured_anew(
    engine: Engine, run_steps: list[ProbeStep], caplog: pytest.LogCaptureFixture
) -> None:
    first = start_cost(engine, CHUNK, MAX_NUM_SEQS)
    key = CostKey.of(engine, CHUNK, MAX_NUM_SEQS)
    save_cost(key, type(first).from_json({**first.to_json(), "decode": [[1, 1.0]]}))
    run_steps.clear()
    assert start_cost(engine, CHUNK, MAX_NUM_SEQS) == first == load_cost(key)
    assert len(run_steps) > 6
    assert "were measured before" in caplog.text


@pytest.mark.parametrize(
    ("factor", "holds"), [(1.0, True), (MAX_FACTOR * 0.99, True), (MAX_FACTOR * 1.01, False), (0.5, False)]
)
def test_model_holds_within_a_factor_either_way(
    engine: Engine, run_steps: list[ProbeStep], factor: float, holds: bool
) -> None:
    model = start_cost(engine, CHUNK, MAX_NUM_SEQS)
    check = first_steps(engine, CHUNK)
    assert still_holds(model, lambda step: factor * model.step_s(step.shape), check) is holds
    assert run_steps


def test_real_engine_is_measured_and_left_as_it_was(engine: Engine) -> None:
    model = start_cost(engine, CHUNK, MAX_NUM_SEQS)
    assert model.prefill_s(1, 0.5) > 0
    assert model.decode_s(1, 1) > 0
    assert (engine.num_prompt_tokens, engine.num_decode_tokens, engine.num_steps) == (0, 0, 0)
    assert engine.pool.blocks.num_free == engine.pool.num_blocks
