import math

import pytest

from core.cost import CostModel, Curve
from core.errors import ConfigError
from loadtest.simulator.spec import Batching, FleetSpec, MoveCosts, WorkerSpec
from tests.loadtest.builders import COST, FCFS, MOVES


def test_steps_are_rounded_to_ticks_and_not_beyond() -> None:
    ticking = Batching(100, 100, tick_s=0.01)
    assert ticking.rounded(0.031) == pytest.approx(0.04)
    assert ticking.rounded(0.03) == pytest.approx(0.03)
    assert FCFS.rounded(0.031) == 0.031


@pytest.mark.parametrize("value", [-1.0, math.inf, math.nan])
def test_numbers_out_of_range_are_refused(value: float) -> None:
    with pytest.raises(ConfigError, match="handoff_s"):
        MoveCosts(handoff_s=value)
    with pytest.raises(ConfigError, match="tick_s"):
        Batching(100, 100, tick_s=value)


def test_batches_and_fleets_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="101"):
        Batching(100, 101)
    with pytest.raises(ConfigError, match="kv_tokens"):
        WorkerSpec(COST, FCFS, 8, 0)
    with pytest.raises(ConfigError, match="0 workers"):
        FleetSpec(0, WorkerSpec(COST, FCFS, 8, 100), MOVES)
    with pytest.raises(ConfigError, match="0 s"):
        WorkerSpec(CostModel(1, Curve(((1, 0.0),)), 0.0, Curve(((1, 0.0),)), 0.0), FCFS, 8, 100)
