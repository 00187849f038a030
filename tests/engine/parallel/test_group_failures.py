"""What ends a group, and what does not."""

import shutil
from pathlib import Path

import pytest

from core.errors import CheckpointError, ConfigError, ShardGroupError
from engine.engine import Engine
from engine.parallel.topology import ShardTopology
from tests.engine.conftest import Served
from tests.engine.driver import Driver
from tests.engine.parallel.ranks import FOLLOWED, Ranks
from tests.engine.test_model import random_prompt

TWO_PARTITIONS = ShardTopology(1, 2)


def test_a_killed_rank_raises_on_all_others(moe: Served, ranks: Ranks) -> None:
    with ranks.group(moe.model_dir, ShardTopology(1, 4), num_blocks=160) as (engine, followers):
        driver = Driver(engine)
        sequence = driver.add("a", random_prompt(1, 20))
        driver.step(sequence.slice(20))
        followers[1].end()
        with pytest.raises(ShardGroupError, match="rank 0 of 4 lost its group"):
            driver.step(sequence.slice(1))
        with pytest.raises(ShardGroupError):
            engine.close()
    assert all(followers[i].answer().startswith("ShardGroupError") for i in (0, 2))


def test_a_waiting_rank_notices_that_rank_0_is_gone(moe: Served, ranks: Ranks) -> None:
    with ranks.group(moe.model_dir, TWO_PARTITIONS, num_blocks=64) as (engine, followers):
        engine._group._communicator.close()
        assert followers[0].answer().startswith("ShardGroupError: rank 1 of 2 lost its group")
        engine._group._is_closed = True


def test_failure_in_the_middle_of_a_step_is_the_groups(
    moe: Served, ranks: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ranks.group(moe.model_dir, TWO_PARTITIONS, num_blocks=64) as (engine, followers):
        driver = Driver(engine)
        sequence = driver.add("a", random_prompt(1, 20))
        monkeypatch.setattr("engine.executor.build_batch", lambda *_: 1 / 0)
        with pytest.raises(ShardGroupError, match=r"rank 0 failed in DrawTokens: ZeroDivisionError"):
            driver.step(sequence.slice(20))
        engine._group._communicator.close()
        assert followers[0].answer().startswith("ShardGroupError")
        engine._group._is_closed = True


def test_broken_promise_of_a_planner_is_not(moe: Served, ranks: Ranks) -> None:
    """It is noticed before the others hear of the step."""
    with ranks.group(moe.model_dir, TWO_PARTITIONS, num_blocks=64) as (engine, followers):
        driver = Driver(engine)
        first, second = driver.add("a", random_prompt(1, 20)), driver.add("b", random_prompt(2, 20))
        first.block_ids[-1] = second.block_ids[0]
        with pytest.raises(AssertionError, match=r"blocks of a lie in partitions \[0, 1\]"):
            driver.step(first.slice(20))
        driver.step(second.slice(20))
    assert followers[0].answer() == FOLLOWED


def test_ranks_with_other_settings_are_refused_on_all(moe: Served, ranks: Ranks) -> None:
    other = {"max_model_len": 100}
    with (
        pytest.raises(ConfigError, match="rank 1 has another model or other settings than rank 0"),
        ranks.group(moe.model_dir, TWO_PARTITIONS, other, num_blocks=64),
    ):
        pytest.fail("the group was formed")
    assert ranks.last[0].answer().startswith("ConfigError: rank 1 has another model")


def test_closing_a_rank_alone_is_harmless(moe: Served, driver: Driver) -> None:
    moe.engine.close()
    moe.engine.close()
    assert driver.step(driver.add("a", [1]).slice(1))


def test_checkpoint_that_is_gone_leaves_every_expert_in_place(moe: Served, ranks: Ranks, tmp_path: Path) -> None:
    shutil.copytree(moe.model_dir, tmp_path, dirs_exist_ok=True)
    prompt = random_prompt(3, 60)
    solo = Driver(Engine.load(moe.model_dir, num_blocks=64))
    expected = solo.generate(solo.add("a", prompt), 20)
    with ranks.group(tmp_path, ShardTopology(1, 2, num_redundant_experts=2), num_blocks=64) as (engine, _):
        driver = Driver(engine)
        sequence = driver.add("a", prompt)
        answer = driver.generate(sequence, 10)
        (tmp_path / "model.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"keeps its experts where they are: .*model\.safetensors"):
            engine.rebalance_experts()
        for _ in range(10):
            answer += driver.step(sequence.slice(1)).values()
        assert answer == expected
