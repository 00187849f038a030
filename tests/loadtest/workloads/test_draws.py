import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError
from loadtest.workloads.draws import Draws, parse_draws


def seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - a load, no secret


def drawn(text: str, num_draws: int = 20_000) -> list[float]:
    random_numbers = seeded(1)
    return [parse_draws(text, "--prompt-tokens").number(random_numbers) for _ in range(num_draws)]


@given(st.integers(1, 10**6), st.integers(0, 2**32))
def test_a_plain_number_is_always_drawn(number: int, seed: int) -> None:
    assert parse_draws(str(number), "--x").count(seeded(seed)) == number


@given(st.integers(1, 1000), st.integers(0, 1000), st.integers(0, 2**32))
def test_uniform_counts_stay_inside_their_bounds(low: int, width: int, seed: int) -> None:
    draws = parse_draws(f"{low}:{low + width}", "--x")
    assert low <= draws.count(seeded(seed)) <= low + width


def test_uniform_counts_include_both_bounds_equally() -> None:
    random_numbers = seeded(1)
    counts = [parse_draws("2:4", "--x").count(random_numbers) for _ in range(3000)]
    assert all(900 < counts.count(number) < 1100 for number in (2, 3, 4))


@pytest.mark.parametrize(
    ("text", "mean", "deviation"),
    [("normal:500:40", 500, 40), ("lognormal:500:300", 500, 300), ("exponential:30", 30, 30), ("100:300", 200, 57.7)],
)
def test_mean_and_deviation_are_those_asked_for(text: str, mean: float, deviation: float) -> None:
    numbers = drawn(text)
    assert statistics.mean(numbers) == pytest.approx(mean, rel=0.05)
    assert statistics.stdev(numbers) == pytest.approx(deviation, rel=0.1)


def test_bounded_draws_stay_inside_and_reach_both_bounds() -> None:
    numbers = drawn("lognormal:500:300:400:600")
    assert min(numbers) == 400
    assert max(numbers) == 600


@given(st.sampled_from(["normal:1:50", "exponential:0.1", "0"]), st.integers(0, 2**32))
def test_a_count_is_at_least_one_and_a_number_never_negative(text: str, seed: int) -> None:
    draws = parse_draws(text, "--x")
    assert draws.count(seeded(seed)) >= 1
    assert draws.number(seeded(seed)) >= 0


def test_bounds_are_read() -> None:
    assert parse_draws("normal:5:1:2:9", "--x") == Draws("normal", (5.0, 1.0), 2.0, 9.0)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no number"),
        ("many", "no number"),
        ("gauss:1:2", "no number"),
        ("-5", "negative"),
        ("inf", "above 10000000"),
        ("nan", "negative or above 10000000"),
        ("normal:512:1e308", "above 10000000"),
        ("normal:5", "number of parts"),
        ("normal:5:1:2", "number of parts"),
        ("1:2:3", "number of parts"),
        ("9:3", "wrong way round"),
        ("normal:5:1:9:2", "wrong way round"),
        ("lognormal:0:1", "mean of less than 1e-06"),
        ("lognormal:1e-300:1", "mean of less than 1e-06"),
    ],
)
def test_what_is_no_distribution_is_refused_with_flag_and_reason(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=f"--think-s is '{text}'.*{problem}"):
        parse_draws(text, "--think-s")
