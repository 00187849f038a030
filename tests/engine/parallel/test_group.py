"""Groups of real processes against transformers and against an engine of one rank."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
import torch

from core.sampling import SamplingParams
from engine.engine import Engine
from engine.parallel.topology import ShardTopology
from engine.plan import Draw, StepPlan, StepResult
from engine.sampling.rules import LogitRules
from tests.engine.conftest import Served
from tests.engine.driver import Driver
from tests.engine.parallel.ranks import FOLLOWED, Ranks
from tests.engine.test_model import assert_same_logits, random_prompt

NUM_BLOCKS = 160
SAMPLED = SamplingParams(temperature=1.0, top_p=0.9, seed=7)
RULED = SamplingParams(temperature=0.0, repetition_penalty=3.0, logit_bias=((1, 2.0),), bad_words=((5,),), logprobs=3)
GROUPS = {
    "dense, 2 x 1": ("dense-untied-with-biases", ShardTopology(2, 1)),
    "moe, 2 x 1": ("moe-with-biases", ShardTopology(2, 1)),
    "moe, 2 x 2": ("moe-with-biases", ShardTopology(2, 2)),
    "moe, 4 x 4, two ranks per KV head, copies": ("moe-untied", ShardTopology(4, 4, num_redundant_experts=4)),
    "moe, 1 x 2": ("moe-with-biases", ShardTopology(1, 2)),
    "moe, 1 x 4, copies": ("moe", ShardTopology(1, 4, num_redundant_experts=4)),
}


@dataclass
class Group:
    served: Served
    engine: Engine


@pytest.fixture(scope="module", params=GROUPS)
def group(request: pytest.FixtureRequest, serve: Callable[[str], Served], ranks: Ranks) -> Iterator[Group]:
    variant, topology = GROUPS[request.param]
    served = serve(variant)
    with ranks.group(served.model_dir, topology, num_blocks=NUM_BLOCKS, max_model_len=384) as (engine, followers):
        yield Group(served, engine)
    assert [follower.answer() for follower in followers] == [FOLLOWED] * len(followers)


@pytest.fixture
def driver(group: Group) -> Iterator[Driver]:
    with Driver(group.engine) as driver:
        yield driver


def test_logits_are_the_references_with_one_sequence_and_with_many(group: Group, driver: Driver) -> None:
    """One sequence leaves the other ranks of a data-parallel group without tokens, in every layer."""
    prompts = {"alone": random_prompt(0, 50), "a": random_prompt(1, 90), "b": random_prompt(2, 7), "c": [3]}
    prompts["d"] = random_prompt(4, 40)
    for name, prompt in prompts.items():
        driver.add(name, prompt, num_answer=0)
    steps = [{"alone": 49}, {"alone": 1, "a": 30, "b": 6}, {"d": 12}, {"a": 1, "b": 1, "c": 1, "d": 28}, {"a": 59}]
    for step in steps:
        actual = driver.logits(*(driver.sequences[name].slice(num_tokens) for name, num_tokens in step.items()))
        computed = [(prompts[name], driver.sequences[name].num_computed) for name in step]
        expected = [group.served.reference_logits(prompt[:end])[-1] for prompt, end in computed]
        assert_same_logits(actual, torch.stack(expected))


def test_step_without_draws_draws_nothing(driver: Driver) -> None:
    assert driver.step(driver.add("a", random_prompt(1, 20)).slice(20, draws=False)) == {}


def answers(driver: Driver) -> list[list[int]]:
    """Greedy and sampled sequences that join one after the other and decode together."""
    lengths = (3, 40, 17, 64, 1)
    for i, num_tokens in enumerate(lengths):
        running = list(driver.sequences.values())
        params = SAMPLED if i % 2 else SamplingParams(temperature=0.0)
        joining = driver.add(str(i), random_prompt(i, num_tokens), params=params)
        driver.step(joining.slice(num_tokens), *(sequence.slice(1) for sequence in running))
    for _ in range(12):
        driver.step(*(sequence.slice(1) for sequence in driver.sequences.values()))
    return [sequence.token_ids[sequence.num_prompt :] for sequence in driver.sequences.values()]


def test_tokens_and_their_counts_are_those_of_one_rank(group: Group, driver: Driver) -> None:
    solo = Driver(Engine.load(group.served.model_dir, num_blocks=NUM_BLOCKS, max_model_len=384))
    before, steps = group.engine.expert_load(), group.engine.num_steps
    assert answers(driver) == answers(solo)
    grown = {
        layer: [now - then for now, then in zip(tokens, before[layer], strict=True)]
        for layer, tokens in group.engine.expert_load().items()
    }
    assert grown == solo.engine.expert_load()
    assert group.engine.num_steps - steps == solo.engine.num_steps


def ruled(driver: Driver) -> StepResult:
    """Three sequences with rules, and one without, in one step."""
    slices = []
    for i in range(4):
        prompt = random_prompt(i, 20 + i)
        sequence = driver.add(f"ruled-{i}", prompt)
        rules = LogitRules.of(RULED, (), prompt, 5) if i else None
        slices.append(replace(sequence.slice(len(prompt)), draw=Draw(RULED, 5, rules)))
    return driver.engine.step(StepPlan(tuple(slices)))


def test_rules_and_logprobs_are_those_of_one_rank(group: Group, driver: Driver) -> None:
    expected = ruled(Driver(Engine.load(group.served.model_dir, num_blocks=NUM_BLOCKS, max_model_len=384)))
    actual = ruled(driver)
    assert actual.tokens == expected.tokens
    assert actual.logprobs.keys() == expected.logprobs.keys() == expected.tokens.keys()
    for name, logprobs in expected.logprobs.items():
        assert actual.logprobs[name].top_ids == logprobs.top_ids
        assert actual.logprobs[name].top_logprobs == pytest.approx(logprobs.top_logprobs, abs=1e-4)


def test_logits_count_no_tokens(group: Group, driver: Driver) -> None:
    before = group.engine.expert_load()
    driver.logits(driver.add("a", random_prompt(1, 20)).slice(20))
    assert group.engine.expert_load() == before


def test_a_sequence_stays_in_its_partition(group: Group, driver: Driver) -> None:
    blocks = group.engine.pool.blocks
    sequences = [driver.add(str(i), random_prompt(i, 70)) for i in range(8)]
    partitions = [{blocks.partition_of(block_id) for block_id in each.block_ids} for each in sequences]
    assert all(len(held) == 1 for held in partitions)
    assert set.union(*partitions) == set(range(group.engine.topology.num_partitions))
    assert len(group.engine.pool.tensor) * blocks.num_partitions == blocks.num_blocks == NUM_BLOCKS
