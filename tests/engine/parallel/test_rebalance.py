import pytest

from core.errors import ConfigError
from engine.engine import Engine
from engine.parallel.rebalance import LayerBalance, RebalanceReport, report
from engine.parallel.topology import ShardTopology
from tests.engine.conftest import Served
from tests.engine.driver import Driver
from tests.engine.parallel.ranks import FOLLOWED, Ranks
from tests.engine.test_model import random_prompt

EXPERT_BYTES = 3 * 32 * 64 * 4  # of the tiny model, in float32


def decode(driver: Driver, num_steps: int) -> None:
    for _ in range(num_steps):
        driver.step(*(sequence.slice(1) for sequence in driver.sequences.values()))


def start(driver: Driver) -> None:
    sequences = [driver.add(str(i), random_prompt(i, 30 + i)) for i in range(4)]
    driver.step(*(sequence.slice(sequence.num_prompt) for sequence in sequences))


@pytest.mark.parametrize("sizes", [(1, 2), (2, 2)], ids=["tokens travel", "all tokens everywhere"])
def test_rebalance_of_a_running_group_changes_no_token(moe: Served, ranks: Ranks, sizes: tuple[int, int]) -> None:
    solo = Driver(Engine.load(moe.model_dir, num_blocks=128))
    start(solo)
    decode(solo, 30)
    topology = ShardTopology(*sizes, num_redundant_experts=2)
    with ranks.group(moe.model_dir, topology, num_blocks=128) as (engine, followers):
        driver = Driver(engine)
        start(driver)
        decode(driver, 10)
        first = engine.rebalance_experts()
        decode(driver, 10)
        second = engine.rebalance_experts([2])
        decode(driver, 10)
        load = engine.expert_load()
    assert followers[0].answer() == FOLLOWED
    assert [each.token_ids for each in driver.sequences.values()] == [
        each.token_ids for each in solo.sequences.values()
    ]
    assert load == solo.engine.expert_load()
    assert [balance.layer for balance in first.layers] == [1, 2, 3]
    assert all(balance.after < balance.before for balance in first.layers)
    assert first.num_moved > 0
    assert first.bytes_read == first.num_moved * EXPERT_BYTES
    assert [balance.layer for balance in second.layers] == [2]


def test_rebalance_again_without_new_load_moves_nothing(moe: Served, ranks: Ranks) -> None:
    with ranks.group(moe.model_dir, ShardTopology(1, 2, num_redundant_experts=2), num_blocks=128) as (engine, _):
        start(Driver(engine))
        engine.rebalance_experts()
        again = engine.rebalance_experts()
    assert again == RebalanceReport(tuple(LayerBalance(layer, 1.0, 1.0) for layer in (1, 2, 3)), 0, 0)


def test_one_rank_has_nothing_to_balance(moe: Served) -> None:
    with pytest.raises(ConfigError, match=r"one rank computes them all; only --expert-parallel-size"):
        moe.engine.rebalance_experts()


def test_experts_cut_by_width_have_nothing_to_balance(moe: Served, ranks: Ranks) -> None:
    with (
        ranks.group(moe.model_dir, ShardTopology(2, 1), num_blocks=64) as (engine, _),
        pytest.raises(ConfigError, match="every rank computes a part of each"),
    ):
        engine.rebalance_experts()


def test_report_compares_under_one_load() -> None:
    before, after = {3: (0, 1, 2, 3)}, {3: (0, 2, 1, 3)}
    balance = LayerBalance(3, 1.5, 1.0)
    assert report({3: [3, 3, 1, 1]}, before, after, 2, 10) == RebalanceReport((balance,), 2, 10)
