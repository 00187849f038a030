import pytest

from core.errors import ConfigError
from loadtest.arrivals import Arrival
from loadtest.planner.demand import demand_of
from loadtest.planner.percentile import percentile


def test_demand_is_the_mean_of_the_load() -> None:
    arrivals = [Arrival(float(number), 100 * (number + 1), 10) for number in range(10)]
    demand = demand_of(arrivals, 0.9, block_tokens=16)
    assert demand.rate == 1.0
    assert demand.prompt_tokens == 550
    assert demand.new_tokens == 550
    assert demand.new_pairs == sum((100 * number) ** 2 for number in range(1, 11)) / 20
    assert demand.long_new_tokens == 900
    assert demand.longest_tokens == 1010
    assert demand.context_tokens == 555


@pytest.mark.parametrize("arrivals", [[], [Arrival(1.0, 1, 1)], [Arrival(1.0, 1, 1), Arrival(1.0, 1, 1)]])
def test_load_without_a_rate_is_refused(arrivals: list[Arrival]) -> None:
    with pytest.raises(ConfigError, match=rf"a load of {len(arrivals)} requests within 0 s has no rate"):
        demand_of(arrivals, 0.9, block_tokens=16)


def test_blocks_that_came_before_are_not_new() -> None:
    """The second prompt begins like the first, the third has only a later block of it, the fourth is the first's."""
    prompts = [(40, (1, 2)), (50, (1, 3, 4)), (40, (9, 2)), (32, (1, 2))]
    arrivals = [Arrival(float(at), length, 1, blocks) for at, (length, blocks) in enumerate(prompts)]
    demand = demand_of(arrivals, 0.75, block_tokens=16)
    new = [40, 50 - 16, 40, 1]
    assert demand.new_tokens == sum(new) / 4
    assert demand.new_pairs == (40 * 20 + 34 * (16 + 17) + 40 * 20 + 1 * 31.5) / 4
    assert demand.long_new_tokens == 40


@pytest.mark.parametrize(("share", "value"), [(0.25, 1), (0.5, 2), (0.51, 3), (0.75, 3), (0.76, None)])
def test_what_never_came_is_the_largest(share: float, value: float | None) -> None:
    assert percentile([3, 1, 2], share, num_all=4) == value


def test_nothing_has_no_percentile() -> None:
    assert percentile([], 0.5, num_all=0) is None
