"""A whole engine with native kernels: as close to float32 as torch's bfloat16, and rows that keep to themselves."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from core.sampling import SamplingParams
from engine.engine import Engine
from engine.plan import StepPlan
from tests.engine.checkpoints import write_tiny_dense, write_tiny_moe
from tests.engine.driver import Driver

PROMPT = [7, 3, 99, 140, 12, 12, 5, 61] * 9
MODELS: dict[str, dict[str, Any]] = {
    "moe": {},
    "moe-untied-with-biases": {"tie_word_embeddings": False, "use_bias": True},
    "dense": {},
    "dense-untied-with-biases": {"tie_word_embeddings": False, "use_bias": True},
}


@dataclass
class Engines:
    """The same bfloat16 checkpoint three times."""

    native: Engine
    torch: Engine
    exact: Engine


@pytest.fixture(scope="module", params=MODELS)
def engines(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engines:
    write = write_tiny_moe if request.param.startswith("moe") else write_tiny_dense
    folder = tmp_path_factory.mktemp("native")
    model_dir = write(folder, dtype=torch.bfloat16, head_dim=32, **MODELS[request.param])
    native = load(model_dir, "auto", "bfloat16")
    if native.kernels is None:
        pytest.skip("no native kernels here")
    return Engines(native, load(model_dir, "torch", "bfloat16"), load(model_dir, "torch", "float32"))


def load(model_dir: Path, kernels: str, dtype: str) -> Engine:
    return Engine.load(model_dir, dtype=dtype, num_blocks=64, kernels=kernels)


def logits(engine: Engine, chunks: tuple[int, ...]) -> Tensor:
    """Of the last token of the prompt, computed in chunks of these sizes."""
    with Driver(engine) as driver:
        sequence = driver.add("a", PROMPT)
        return [engine.logits(StepPlan((sequence.slice(size),))) for size in chunks][-1][0]


def error(actual: Tensor, exact: Tensor) -> float:
    return float((actual - exact).norm() / exact.norm())


def test_is_more_exact_than_torch(engines: Engines) -> None:
    """Its residual stream is not rounded to bfloat16."""
    for chunks in ((72,), (40, 32), (71, 1)):
        exact = logits(engines.exact, chunks)
        assert error(logits(engines.native, chunks), exact) < error(logits(engines.torch, chunks), exact)


def test_a_prompt_gives_the_same_bits_however_it_is_cut(engines: Engines) -> None:
    whole = logits(engines.native, (72,))
    for chunks in ((40, 32), (17, 2, 53), (2, 68, 2), (60, *[1] * 12)):
        assert torch.equal(logits(engines.native, chunks), whole)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_goes_on_with_the_same_tokens_when_it_comes_back_as_a_prompt(
    engines: Engines, temperature: float
) -> None:
    """What happens to a request whose decode worker died: in bfloat16 no token changes either."""
    params = SamplingParams(temperature=temperature, seed=11)
    with Driver(engines.native) as driver:
        answer = driver.generate(driver.add("whole", PROMPT[:50], params=params), 40)
        for cut in (1, 13, 14, 30):
            name = f"cut-{cut}"
            resumed = driver.add(name, PROMPT[:50] + answer[:cut], params=params)
            resumed.num_prompt = 50  # positions of draws count from the end of the first prompt
            assert driver.generate(resumed, 40 - cut) == answer


def test_a_sequence_gives_the_same_bits_whatever_it_is_batched_with(engines: Engines) -> None:
    def step(names: str) -> Tensor:
        """Decodes sequence a beside others; returns its logits."""
        with Driver(engines.native) as driver:
            sequences = {name: driver.add(name, PROMPT[: 72 - 7 * i]) for i, name in enumerate("abcdefg")}
            for sequence in sequences.values():
                engines.native.logits(StepPlan((sequence.slice(sequence.num_prompt - 1),)))
            plan = StepPlan(tuple(sequences[name].slice(1) for name in names))
            return engines.native.logits(plan)[names.index("a")]

    alone = step("a")
    for names in ("ab", "ga", "bcadefg"):
        assert torch.equal(step(names), alone)


def test_a_context_of_131072_tokens(tmp_path: Path) -> None:
    """One layer, so that the test takes seconds; the last token attends over all others, checked with torch."""
    length = 131_072
    shape = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
    model_dir = write_tiny_dense(tmp_path, dtype=torch.bfloat16, max_position_embeddings=length, **shape)
    engines = [Engine.load(model_dir, num_blocks=length // 16, kernels=kernels) for kernels in ("auto", "torch")]
    if engines[0].kernels is None:
        pytest.skip("no native kernels here")
    prompt = [(7 * i + i // 160) % 160 for i in range(length)]
    last = []
    for engine in engines:
        with Driver(engine) as driver:
            sequence = driver.add("long", prompt, num_answer=0)
            if engine is engines[0]:
                while sequence.num_computed < length - 1:
                    size = min(8192, length - 1 - sequence.num_computed)
                    engine.logits(StepPlan((sequence.slice(size, draws=False),)))
            else:
                engine.pool.tensor.copy_(engines[0].pool.tensor)
                sequence.num_computed = length - 1
            last.append(engine.logits(StepPlan((sequence.slice(1),)))[0])
    assert error(last[0], last[1]) < 0.02
