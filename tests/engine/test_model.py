"""The model against transformers on random checkpoints: same logits however the work is cut and batched."""

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.engine import Engine
from tests.engine.checkpoints import write_tiny_moe
from tests.engine.conftest import Served
from tests.engine.driver import Driver

REL_TOLERANCE = 1e-4  # of the range of the logits


def random_prompt(seed: int, num_tokens: int) -> list[int]:
    return random.Random(seed).choices(range(160), k=num_tokens)  # noqa: S311 - repeatable, not secret


def assert_same_logits(actual: Tensor, expected: Tensor) -> None:
    difference = (actual - expected).abs().max().item()
    assert difference < REL_TOLERANCE * (expected.max() - expected.min()).item()


@pytest.fixture
def model_driver(served: Served) -> Iterator[Driver]:
    with Driver(served.engine) as driver:
        yield driver


def test_prompt_whole_gives_reference_logits(served: Served, model_driver: Driver) -> None:
    for seed, num_tokens in enumerate((1, 2, 16, 17, 100)):
        prompt = random_prompt(seed, num_tokens)
        actual = model_driver.logits(model_driver.add(str(seed), prompt).slice(num_tokens))
        assert_same_logits(actual, served.reference_logits(prompt)[-1:])


def test_prompt_in_uneven_chunks_gives_reference_logits(served: Served, model_driver: Driver) -> None:
    prompt = random_prompt(7, 110)
    expected = served.reference_logits(prompt)
    sequence = model_driver.add("a", prompt)
    for num_tokens in (5, 1, 27, 16, 1, 60):
        actual = model_driver.logits(sequence.slice(num_tokens))
        assert_same_logits(actual, expected[sequence.num_computed - 1][None])


def test_greedy_decode_gives_reference_tokens(served: Served, model_driver: Driver) -> None:
    prompt = random_prompt(3, 23)
    sequence = model_driver.add("a", prompt)
    assert model_driver.generate(sequence, 64) == served.reference_greedy(prompt, 64)


def test_mixed_batch_gives_reference_logits(served: Served, model_driver: Driver) -> None:
    """Prompt chunks, whole prompts and decode tokens of very different lengths in one step."""
    lengths = {"long": 300, "middle": 90, "short": 5, "chunked": 70, "whole": 33}
    sequences = {name: model_driver.add(name, random_prompt(i, n)) for i, (name, n) in enumerate(lengths.items())}
    for name in ("long", "middle", "short"):
        model_driver.logits(sequences[name].slice(lengths[name] - 3, draws=False))
    model_driver.logits(sequences["chunked"].slice(31, draws=False))
    plan = [("short", 1), ("chunked", 20), ("long", 1), ("whole", 33), ("middle", 1)]
    actual = model_driver.logits(*(sequences[name].slice(num_tokens) for name, num_tokens in plan))
    expected = [
        served.reference_logits(sequences[name].token_ids[: sequences[name].num_computed])[-1] for name, _ in plan
    ]
    assert_same_logits(actual, torch.stack(expected))


@settings(max_examples=25)
@given(
    st.lists(
        st.dictionaries(st.sampled_from(["0", "1", "2", "3"]), st.integers(1, 40), min_size=1), min_size=1, max_size=6
    )
)
def test_any_schedule_gives_reference_logits(serve: Callable[[str], Served], steps: list[dict[str, int]]) -> None:
    """Steps of random slices of four sequences: chunks, single tokens, starts and continuations in one batch."""
    served = serve("moe-with-biases")
    with Driver(served.engine) as driver:
        prompts = {str(i): random_prompt(i, 240) for i in range(4)}
        for name, prompt in prompts.items():
            driver.add(name, prompt, num_answer=0)
        for step in steps:
            actual = driver.logits(*(driver.sequences[name].slice(num_tokens) for name, num_tokens in step.items()))
            expected = [
                served.reference_logits(prompts[name][: driver.sequences[name].num_computed])[-1] for name in step
            ]
            assert_same_logits(actual, torch.stack(expected))


def test_greedy_decode_in_a_batch_gives_reference_tokens(serve: Callable[[str], Served]) -> None:
    served = serve("moe")
    with Driver(served.engine) as driver:
        prompts = {str(i): random_prompt(i, num_tokens) for i, num_tokens in enumerate((3, 40, 150, 17, 64))}
        sequences = [driver.add(name, prompt) for name, prompt in prompts.items()]
        for sequence in sequences:  # each joins a step later than the one before
            running = [other for other in sequences if other.num_computed]
            driver.step(*(other.slice(1) for other in running), sequence.slice(sequence.num_prompt))
        while any(len(sequence.token_ids) < sequence.num_prompt + 64 for sequence in sequences):
            driver.step(*(each.slice(1) for each in sequences if len(each.token_ids) < each.num_prompt + 64))
        for sequence in sequences:
            assert sequence.token_ids[sequence.num_prompt :] == served.reference_greedy(prompts[sequence.name], 64)


def test_chunk_without_draw_computes_no_logits_but_stores_kv(driver: Driver) -> None:
    prompt = random_prompt(1, 40)
    whole, chunked = driver.add("whole", prompt), driver.add("chunked", prompt)
    expected = driver.logits(whole.slice(40))
    assert driver.logits(chunked.slice(39, draws=False)).shape == (0, 160)
    assert_same_logits(driver.logits(chunked.slice(1)), expected)


def test_step_writes_only_its_own_blocks(driver: Driver) -> None:
    sequence = driver.add("a", random_prompt(1, 40), num_answer=0)
    pool = driver.engine.pool
    before = pool.tensor.clone()
    driver.logits(sequence.slice(40))
    changed = (pool.tensor != before).flatten(1).any(1).nonzero().flatten().tolist()
    assert set(changed) <= set(sequence.block_ids)
    last_block = pool.tensor[sequence.block_ids[-1]]
    assert torch.equal(last_block[..., 8:, :], before[sequence.block_ids[-1]][..., 8:, :])  # 40 = 2 * 16 + 8


def test_kv_copied_to_other_blocks_continues_the_same(driver: Driver) -> None:
    """What a handoff relies on: blocks mean the same wherever they are."""
    here, there = (driver.add(name, random_prompt(5, 37)) for name in ("here", "there"))
    driver.step(here.slice(37))
    there.token_ids, there.num_computed = list(here.token_ids), here.num_computed
    driver.engine.pool.tensor[there.block_ids] = driver.engine.pool.tensor[here.block_ids]
    for _ in range(10):
        driver.step(here.slice(1))
    for _ in range(10):
        driver.step(there.slice(1))
    assert here.token_ids == there.token_ids


def test_correction_bias_matters(tmp_path: Path) -> None:
    """Guards the comparisons above: with a bias that changed nothing, they would not test it."""
    model_dir = write_tiny_moe(tmp_path)
    prompt = random_prompt(1, 30)
    biased = Driver(Engine.load(model_dir, num_blocks=40, max_model_len=256))
    with_bias = biased.logits(biased.add("a", prompt).slice(30))
    tensors = load_file(model_dir / "model.safetensors")
    for name, tensor in tensors.items():
        if name.endswith("e_score_correction_bias"):
            tensor.zero_()
    save_file(tensors, model_dir / "model.safetensors")
    plain = Driver(Engine.load(model_dir, num_blocks=40, max_model_len=256))
    assert (plain.logits(plain.add("a", prompt).slice(30)) - with_bias).abs().max() > 0.1


@pytest.mark.parametrize("alias", ["mlp.moe_statics.", "mlp.gate.moe_statics."])
def test_correction_bias_loads_under_both_names(tmp_path: Path, alias: str) -> None:
    model_dir = write_tiny_moe(tmp_path)
    path = model_dir / "model.safetensors"
    tensors = {name.replace("mlp.moe_statics.", alias): tensor for name, tensor in load_file(path).items()}
    assert sum(alias in name for name in tensors) == 3
    save_file(tensors, path)
    Engine.load(model_dir, num_blocks=32)


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 0.1), ("float16", 0.02)])
def test_half_precision_is_close_to_float32(moe: Served, dtype: str, tolerance: float) -> None:
    driver = Driver(Engine.load(moe.model_dir, dtype=dtype, num_blocks=40, max_model_len=256))
    assert driver.engine.pool.tensor.dtype == getattr(torch, dtype)
    prompt = random_prompt(2, 80)
    sequence = driver.add("a", prompt)
    expected = moe.reference_logits(prompt)
    logits_range = (expected.max() - expected.min()).item()
    for num_tokens in (50, 1, 7, 22):  # every path: whole, single, few, many
        actual = driver.logits(sequence.slice(num_tokens))
        # The mean: a token whose experts are nearly equal may go to another one, which moves single logits far.
        difference = (actual[0] - expected[sequence.num_computed - 1]).abs().mean().item()
        assert difference < tolerance * logits_range
    assert actual.dtype == torch.float32


def test_bfloat16_batch_of_decodes_agrees_with_single_decodes(moe: Served) -> None:
    """The forms of a product chosen for one, few and many tokens compute the same."""
    driver = Driver(Engine.load(moe.model_dir, dtype="bfloat16", num_blocks=160, max_model_len=64))
    prompts = [random_prompt(seed, 20) for seed in range(40)]
    singles, batched = ([driver.add(f"{kind}{i}", p, 1) for i, p in enumerate(prompts)] for kind in "sb")
    for sequence in singles + batched:
        driver.logits(sequence.slice(19, draws=False))
    alone = torch.cat([driver.logits(sequence.slice(1)) for sequence in singles])
    together = driver.logits(*(sequence.slice(1) for sequence in batched))
    assert (alone - together).abs().mean() < 0.02 * (alone.max() - alone.min())


def test_sharded_checkpoint_gives_the_same_logits(moe: Served, driver: Driver, tmp_path: Path) -> None:
    moe.reference.save_pretrained(tmp_path, max_shard_size="200KB")
    assert len(json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]) > 10
    sharded = Driver(Engine.load(tmp_path, num_blocks=40, max_model_len=256))
    prompt = random_prompt(4, 50)
    actual = sharded.logits(sharded.add("a", prompt).slice(50))
    assert torch.equal(actual, driver.logits(driver.add("a", prompt).slice(50)))
