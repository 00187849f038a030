from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import ConfigError
from core.sampling import SamplingParams
from engine.engine import Engine
from engine.plan import SequenceSlice, SliceKind, StepPlan
from tests.engine.checkpoints import write_tiny_moe
from tests.engine.conftest import Served
from tests.engine.driver import Driver

PROMPT = list(range(40))


def test_attributes_describe_what_is_served(moe: Served) -> None:
    engine = moe.engine
    assert (engine.max_model_len, engine.dtype, engine.pool.num_blocks) == (512, "float32", 160)
    assert engine.pool.tensor.shape == (160, 4, 2, 2, 16, 16)
    other = Engine.load(moe.model_dir, dtype="bfloat16", num_blocks=2, max_model_len=32)
    assert (other.max_model_len, other.dtype) == (32, "bfloat16")
    assert other.fingerprint != engine.fingerprint


def test_auto_dtype_is_the_checkpoints(tmp_path: Path) -> None:
    write_tiny_moe(tmp_path, dtype=torch.bfloat16)
    assert Engine.load(tmp_path, num_blocks=32).dtype == "bfloat16"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"max_model_len": 513}, "max_model_len is 513; .*512"),
        ({"max_model_len": 0}, "max_model_len is 0"),
        ({"num_blocks": 31}, "num_blocks is 31, .* needs 32"),
        ({"num_blocks": 0, "max_model_len": 1}, "num_blocks is 0"),
        ({"block_tokens": 0}, "block_tokens is 0"),
    ],
    ids=str,
)
def test_argument_that_cannot_work_is_named(moe: Served, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Engine.load(moe.model_dir, **{"num_blocks": 32, **arguments})


def test_step_reports_and_counts_tokens_by_kind(driver: Driver) -> None:
    engine = driver.engine
    before = engine.num_prompt_tokens, engine.num_decode_tokens, engine.num_steps
    first, second = driver.add("first", PROMPT), driver.add("second", PROMPT)
    driver.step(first.slice(40))
    plan = StepPlan((first.slice(1), second.slice(25, draws=False)))
    result = engine.step(plan)
    assert (result.num_prompt_tokens, result.num_decode_tokens) == (25, 1)
    assert result.tokens.keys() == {"first"}
    after = engine.num_prompt_tokens, engine.num_decode_tokens, engine.num_steps
    assert tuple(b - a for a, b in zip(before, after, strict=True)) == (65, 1, 2)


def test_step_without_slices_does_nothing(driver: Driver) -> None:
    num_steps = driver.engine.num_steps
    result = driver.engine.step(StepPlan(()))
    assert (result.tokens, result.num_prompt_tokens, result.num_decode_tokens) == ({}, 0, 0)
    assert driver.engine.num_steps == num_steps


def test_step_every_layer_is_final_once_and_what_only_computes_logits_is_no_step(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress, finals = driver.engine.progress, list[int]()
    end_layer = progress.end_layer

    def watch() -> None:
        end_layer()
        finals.append(progress.num_final_layers(progress.num_begun))

    monkeypatch.setattr(progress, "end_layer", watch)
    step = progress.num_begun + 1
    sequence = driver.add("a", PROMPT)
    driver.logits(sequence.slice(4))
    assert finals == []
    driver.step(sequence.slice(6))
    assert finals == list(range(1, driver.engine.config.num_layers + 1))
    assert progress.num_begun == step


def test_step_without_draws_gives_no_tokens(driver: Driver) -> None:
    assert driver.step(driver.add("a", PROMPT).slice(40, draws=False)) == {}


def test_sampled_answer_repeats_on_another_engine_from_the_middle(moe: Served, driver: Driver) -> None:
    """The resume after a lost worker: prompt and answer so far become a prompt, draws go on at their position."""
    params = SamplingParams(temperature=1.0, top_p=0.95, seed=42)
    sequence = driver.add("a", PROMPT, params=params)
    answer = driver.generate(sequence, 30)
    assert len(set(answer)) > 5
    other = Driver(Engine.load(moe.model_dir, num_blocks=32))
    resumed = other.add("a", PROMPT, params=params)
    resumed.token_ids += answer[:12]
    other.step(resumed.slice(52))
    for _ in range(17):
        other.step(resumed.slice(1))
    assert resumed.token_ids[40:] == answer


@pytest.mark.parametrize(
    ("token_ids", "start", "block_ids", "message"),
    [
        ([], 0, [0], "has no tokens"),
        ([1] * 17, 0, [0], "ends at 17, its blocks at 16"),
        ([1], 512, list(range(33)), "ends at 513, over 512"),
    ],
)
def test_broken_promise_of_a_planner_asserts(
    moe: Served, token_ids: list[int], start: int, block_ids: list[int], message: str
) -> None:
    piece = SequenceSlice("a", SliceKind.PROMPT, token_ids, start, block_ids, None)
    with pytest.raises(AssertionError, match=message):
        moe.engine.step(StepPlan((piece,)))


def test_other_block_sizes_give_the_same_tokens(moe: Served) -> None:
    answers = []
    for block_tokens in (1, 5, 64):
        engine = Engine.load(moe.model_dir, block_tokens=block_tokens, num_blocks=300, max_model_len=300)
        driver = Driver(engine)
        answers.append(driver.generate(driver.add("a", PROMPT), 20))
    assert answers[0] == answers[1] == answers[2]
