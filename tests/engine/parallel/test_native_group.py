"""Groups whose ranks compute with the native kernels: as close to float32 as one rank that does."""

from pathlib import Path

import pytest
import torch

from engine.engine import Engine
from engine.parallel.topology import ShardTopology
from tests.engine.checkpoints import write_tiny_moe
from tests.engine.driver import Driver
from tests.engine.parallel.ranks import FOLLOWED, Ranks
from tests.engine.test_model import random_prompt
from tests.engine.test_native_engine import error

# Every rank's part of these is a multiple of the tiles.
SIZES = {"head_dim": 32, "intermediate_size": 128, "moe_intermediate_size": 64, "use_bias": True}
TOPOLOGIES = [ShardTopology(2, 1), ShardTopology(2, 2), ShardTopology(1, 2, num_redundant_experts=2)]


@pytest.fixture(scope="module", params=["tied", "untied"])
def model_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("native")
    is_tied = request.param == "tied"
    return write_tiny_moe(folder, dtype=torch.bfloat16, tie_word_embeddings=is_tied, **SIZES)


def logits(engine: Engine) -> torch.Tensor:
    """Of two sequences after a chunk and a token of each, and of one alone."""
    with Driver(engine) as driver:
        first, second = driver.add("a", random_prompt(1, 60)), driver.add("b", random_prompt(2, 30))
        driver.step(first.slice(50, draws=False))
        driver.logits(first.slice(9, draws=False), second.slice(29, draws=False))
        together = driver.logits(first.slice(1), second.slice(1))
        return torch.cat([together, driver.logits(driver.add("c", random_prompt(3, 40)).slice(40))])


@pytest.mark.parametrize("topology", TOPOLOGIES, ids=str)
def test_group_is_as_exact_as_one_rank(model_dir: Path, topology: ShardTopology, ranks: Ranks) -> None:
    load = {"num_blocks": 64, "max_model_len": 256}
    solo = Engine.load(model_dir, **load)
    if solo.kernels is None:
        pytest.skip("no native kernels here")
    exact = logits(Engine.load(model_dir, dtype="float32", **load))
    with ranks.group(model_dir, topology, **load, kernels="native") as (engine, followers):
        before = error(logits(engine), exact)
        if topology.expert_parallel_size > 1:
            assert engine.rebalance_experts().num_moved > 0
        after = error(logits(engine), exact)
    assert followers[0].answer() == FOLLOWED
    assert max(before, after) < 2 * error(logits(solo), exact) + 1e-3
