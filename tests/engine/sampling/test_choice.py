import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.sampling import SamplingParams
from engine.sampling.choice import choose
from engine.sampling.philox import uniforms
from tests.engine.sampling.reference import Floats, distribution, intervals

logits_rows = st.lists(st.sampled_from([-30.0, -9.0, -2.0, -1.0, 0.0, 0.5, 3.0]), min_size=1, max_size=200).map(
    lambda values: np.array(values, dtype=np.float32)
)
sampling_params = st.builds(
    SamplingParams,
    temperature=st.sampled_from([1e-9, 0.3, 1.0, 2.0]),
    top_p=st.sampled_from([1e-6, 0.3, 0.9, 1.0]),
    top_k=st.sampled_from([0, 1, 3, 24, 1000]),
    min_p=st.sampled_from([0.0, 1e-3, 0.2, 1.0]),
)


def draw(logits: Floats | Sequence[float], params: SamplingParams, numbers: Sequence[float]) -> list[int]:
    """Tokens that numbers fall on."""
    rows = torch.tensor(np.asarray(logits, dtype=np.float32)).expand(len(numbers), -1)
    return choose(rows, [params] * len(numbers), torch.tensor(numbers, dtype=torch.float64)).tolist()


def evenly(num: int) -> list[float]:
    return [i / num for i in range(num)]


@settings(max_examples=400)
@given(logits_rows, sampling_params, st.floats(0, 1, exclude_max=True))
def test_draw_is_the_quantile_of_the_filtered_distribution(
    logits: Floats, params: SamplingParams, number: float
) -> None:
    (token,) = draw(logits, params, [number])
    # float32 probabilities shift an interval's ends a little; a token outside the kept ones is never right.
    low, high = intervals(logits, params)[token]
    assert low - 1e-5 <= number <= high + 1e-5


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        SamplingParams(temperature=0.6),
        SamplingParams(temperature=1.7, top_k=7),
        SamplingParams(top_p=0.8),
        SamplingParams(temperature=1.3, top_p=0.9, top_k=12),
        SamplingParams(min_p=0.05),
        SamplingParams(temperature=1.5, min_p=0.02, top_p=0.95),
    ],
    ids=str,
)
def test_frequencies_match_exact_probabilities(params: SamplingParams) -> None:
    logits = np.random.default_rng(0).normal(scale=2.0, size=50).astype(np.float32)
    num_draws = 20_000
    numbers = uniforms(torch.full((num_draws,), 7), torch.arange(num_draws))
    counts = np.bincount(draw(logits, params, numbers.tolist()), minlength=50)
    expected = np.zeros(50)
    for token, probability in distribution(logits, params):
        expected[token] = probability * num_draws
    assert not counts[expected == 0].any()
    kept = expected > 0
    chi_square = ((counts - expected)[kept] ** 2 / expected[kept]).sum()
    degrees = kept.sum() - 1
    assert chi_square < degrees + 6 * math.sqrt(2 * degrees)  # six standard deviations, and the numbers are fixed


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(top_p=0.999),
        SamplingParams(top_p=0.7, top_k=900),
        SamplingParams(top_k=900),
        SamplingParams(top_k=40),
        SamplingParams(top_p=0.5, min_p=1e-6),
    ],
    ids=str,
)
def test_draw_that_the_sorted_head_does_not_settle_agrees_with_the_full_order(params: SamplingParams) -> None:
    """So flat at the bottom that many draws and cuts lie deeper than what is sorted first."""
    logits = np.full(1000, -12.0, dtype=np.float32)
    logits[500] = -4.0
    logits[[3, 999]] = -11.5
    expected = intervals(logits, params)
    numbers = evenly(101)
    for number, token in zip(numbers, draw(logits, params, numbers), strict=True):
        low, high = expected[token]
        assert low - 1e-4 <= number <= high + 1e-4


@pytest.mark.parametrize("params", [SamplingParams(), SamplingParams(top_k=3), SamplingParams(top_p=0.9)], ids=str)
def test_tokens_that_change_ranks_by_rounding_do_not_change_the_draw(params: SamplingParams) -> None:
    logits = np.array([2.0, -3.0, 2.0, 2.0, -3.0], dtype=np.float32)
    expected = draw(logits, params, evenly(50))
    for token in (0, 2, 3):
        nearly = logits.copy()
        nearly[token] = np.nextafter(nearly[token], np.float32(3))
        assert draw(nearly, params, evenly(50)) == expected


def test_equal_logits_keep_the_lowest_ids() -> None:
    assert set(draw([0.0] * 300, SamplingParams(top_k=3), evenly(100))) == {0, 1, 2}
    assert set(draw([0.0] * 10, SamplingParams(top_p=0.4), evenly(100))) == {0, 1, 2, 3}


def test_draw_on_a_boundary_goes_to_the_next_token() -> None:
    assert draw([0.0] * 4, SamplingParams(), [0.5]) == [2]
    assert draw([0.0] * 4, SamplingParams(top_k=3, top_p=0.9), [1 / 3]) == [1]


def test_minus_infinity_is_never_drawn() -> None:
    logits = [-math.inf, 1.0, -math.inf, 1.0]
    numbers = [*evenly(100), 1 - 2**-53]
    for params in (SamplingParams(), SamplingParams(top_k=3), SamplingParams(top_p=0.9999), SamplingParams(min_p=1)):
        assert set(draw(logits, params, numbers)) == {1, 3}


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(top_k=1),
        SamplingParams(top_p=1e-9),
        SamplingParams(temperature=1e-300),
        SamplingParams(min_p=1.0),
    ],
    ids=str,
)
def test_narrowest_filters_take_the_likeliest(params: SamplingParams) -> None:
    logits = np.random.default_rng(1).normal(size=300).astype(np.float32)
    assert set(draw(logits, params, evenly(50))) == {int(logits.argmax())}


def test_min_p_is_relative_to_the_likeliest_token() -> None:
    probabilities = [0.5, 0.3, 0.1, 0.06, 0.04]
    logits = [math.log(p) for p in probabilities]
    assert set(draw(logits, SamplingParams(min_p=0.15), evenly(100))) == {0, 1, 2}
    assert set(draw(logits, SamplingParams(min_p=0.1), evenly(100))) == {0, 1, 2, 3}


def test_min_p_comes_after_temperature_and_before_top_p() -> None:
    logits = [math.log(p) for p in (0.5, 0.3, 0.1, 0.06, 0.04)]
    hot = SamplingParams(temperature=2.0, min_p=0.4)  # sqrt(0.1 / 0.5) is 0.447, sqrt(0.06 / 0.5) is 0.346
    assert set(draw(logits, hot, evenly(100))) == {0, 1, 2}
    both = SamplingParams(min_p=0.15, top_p=0.8)  # 0.5 + 0.3 of the 0.9 that min-p leaves
    assert set(draw(logits, both, evenly(100))) == {0, 1}


@pytest.mark.parametrize("vocab_size", [1, 63, 64, 65, 1000])
def test_any_vocabulary_size_covers_its_last_token(vocab_size: int) -> None:
    logits = np.full(vocab_size, -50.0, dtype=np.float32)
    logits[-1] = 0.0
    for params in (SamplingParams(), SamplingParams(top_p=0.9), SamplingParams(top_k=1)):
        assert set(draw(logits, params, evenly(7))) == {vocab_size - 1}
