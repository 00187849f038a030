import itertools
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError
from loadtest.workloads.arrival_times import ArrivalProcess, parse_arrivals

PROCESSES = st.sampled_from(["poisson", "gamma:0.5", "gamma:3", "constant", "burst:5"])


def times(text: str, rate: float, seed: int, number: int) -> list[float]:
    return list(itertools.islice(parse_arrivals(text).times(rate, seed), number))


@given(PROCESSES, st.floats(0.01, 1000), st.integers(0, 2**32))
def test_times_never_fall_and_are_the_same_for_the_same_seed(text: str, rate: float, seed: int) -> None:
    first = times(text, rate, seed, 200)
    assert first == sorted(first)
    assert first[0] >= 0
    assert first == times(text, rate, seed, 200)


@given(st.sampled_from(["poisson", "gamma:3"]), st.integers(0, 2**32))
def test_another_rate_stretches_the_same_times(text: str, seed: int) -> None:
    slow, fast = times(text, 2.0, seed, 50), times(text, 8.0, seed, 50)
    assert [time / 4 for time in slow] == pytest.approx(fast)


@pytest.mark.parametrize("text", ["poisson", "gamma:0.5", "gamma:3", "constant", "burst:5"])
def test_in_the_long_run_the_rate_is_the_one_asked_for(text: str) -> None:
    assert 20_000 / times(text, 4.0, 1, 20_000)[-1] == pytest.approx(4.0, rel=0.05)


@pytest.mark.parametrize(("text", "variation"), [("poisson", 1.0), ("gamma:0.5", 0.5), ("gamma:3", 3.0)])
def test_gaps_vary_as_asked_for(text: str, variation: float) -> None:
    gaps = [after - before for before, after in itertools.pairwise(times(text, 4.0, 1, 20_000))]
    assert statistics.stdev(gaps) / statistics.mean(gaps) == pytest.approx(variation, rel=0.1)


def test_constant_gaps_begin_at_once() -> None:
    assert times("constant", 4.0, 1, 4) == [0.0, 0.25, 0.5, 0.75]


def test_a_burst_comes_together() -> None:
    assert times("burst:3", 6.0, 1, 7) == [0.0, 0.0, 0.0, 0.5, 0.5, 0.5, 1.0]


def test_parameters_are_read() -> None:
    assert parse_arrivals("gamma:2.5") == ArrivalProcess("gamma", 2.5)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "uniform",
        "poisson:2",
        "gamma",
        "gamma:0",
        "gamma:1e-9",
        "gamma:1e200",
        "gamma:inf",
        "gamma:x",
        "burst:0",
        "burst:1.5",
        "burst:inf",
    ],
)
def test_what_is_no_arrival_process_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"--arrivals is '{text}'"):
        parse_arrivals(text)
