import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.simulator.spread import STEP, Spread


@given(st.lists(st.floats(1e-4, 1e4) | st.just(0.0), min_size=1), st.floats(0.01, 1.0))
def test_share_of_times_is_at_most_what_is_said_and_no_more_than_a_bucket_below(
    times_s: list[float], share: float
) -> None:
    spread = Spread()
    for seconds in times_s:
        spread.add(seconds)
    exact = sorted(times_s)[math.ceil(share * len(times_s)) - 1]
    found = spread.at(share)
    assert found is not None
    assert exact <= found * (1 + 1e-12)
    assert found <= exact * STEP * (1 + 1e-12)


def test_nothing_counted_has_no_share() -> None:
    assert Spread().at(0.5) is None


def test_many_times_take_few_buckets() -> None:
    spread = Spread()
    for number in range(10_000):
        spread.add(0.1 + number / 10_000)
    assert len(spread) == 10_000
    assert spread.at(0.5) == pytest.approx(0.6, rel=0.01)
