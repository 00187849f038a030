from pathlib import Path

import pytest

from engine.engine import Engine
from engine.plan import StepResult
from worker.speed import PROBE_TOKENS, SMOOTHING, SpeedEstimate, measure_speed, smoothed

PROBE = 32


def estimate() -> SpeedEstimate:
    return SpeedEstimate(prefill_tokens_per_s=100.0, decode_step_s=1.0, probe_tokens=PROBE)


def test_prompt_step_moves_prompt_speed_only() -> None:
    speed = estimate()
    speed.observe(StepResult(num_prompt_tokens=100), step_s=0.5)
    assert speed.prefill_tokens_per_s == pytest.approx(100 + SMOOTHING * (200 - 100))
    assert speed.decode_step_s == 1.0


def test_decode_step_moves_step_time_only() -> None:
    speed = estimate()
    speed.observe(StepResult(num_decode_tokens=4), step_s=2.0)
    assert speed.decode_step_s == pytest.approx(1 + SMOOTHING)
    assert speed.prefill_tokens_per_s == 100.0


@pytest.mark.parametrize(("num_prompt_tokens", "num_decode_tokens"), [(PROBE, 1), (PROBE - 1, 0), (1, 0), (0, 0)])
def test_mixed_empty_and_short_steps_say_nothing(num_prompt_tokens: int, num_decode_tokens: int) -> None:
    speed = estimate()
    result = StepResult(num_prompt_tokens=num_prompt_tokens, num_decode_tokens=num_decode_tokens)
    speed.observe(result, step_s=9.0)
    assert (speed.prefill_tokens_per_s, speed.decode_step_s) == (100.0, 1.0)


def test_smoothed_converges_to_a_constant() -> None:
    mean = 0.0
    for _ in range(50):
        mean = smoothed(mean, 8.0)
    assert mean == pytest.approx(8.0, rel=1e-4)


@pytest.mark.parametrize(
    ("max_model_len", "budget", "probe_tokens"), [(256, 512, PROBE_TOKENS), (256, 16, 16), (2, 512, 1)]
)
def test_measure_speed_counts_nothing_and_leaves_the_pool_free(
    tiny_model_dir: Path, max_model_len: int, budget: int, probe_tokens: int
) -> None:
    engine = Engine.load(tiny_model_dir, block_tokens=4, num_blocks=64, max_model_len=max_model_len)
    speed = measure_speed(engine, budget)
    assert speed.prefill_tokens_per_s > 0
    assert speed.decode_step_s > 0
    assert speed._probe_tokens == probe_tokens
    assert (engine.num_prompt_tokens, engine.num_decode_tokens, engine.num_steps) == (0, 0, 0)
    assert engine.pool.blocks.num_free == engine.pool.num_blocks
