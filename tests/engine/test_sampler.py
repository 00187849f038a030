import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.sampling import SamplingParams
from engine.plan import Draw
from engine.sampler import Floats, draw_token, sample, uniform

logits_rows = st.lists(st.sampled_from([-30.0, -9.0, -2.0, -1.0, 0.0, 0.5, 3.0]), min_size=1, max_size=24).map(
    lambda values: np.array(values, dtype=np.float32)
)
sampling_params = st.builds(
    SamplingParams,
    temperature=st.sampled_from([1e-9, 0.3, 1.0, 2.0]),
    top_p=st.sampled_from([1e-6, 0.3, 0.9, 1.0]),
    top_k=st.sampled_from([0, 1, 3, 24, 1000]),
)


def reference_distribution(logits: Floats, params: SamplingParams) -> list[tuple[int, float]]:
    """(token id, probability) of what is kept, likeliest first: the definition, written out in Python."""
    best = max(logits)
    weights = [math.exp((float(value) - float(best)) / max(params.temperature, 1e-5)) for value in logits]
    order = sorted(range(len(weights)), key=lambda token: (-weights[token], token))
    order = order[: params.top_k or None]
    total = math.fsum(weights[token] for token in order)
    kept: list[int] = []
    while math.fsum(weights[token] for token in kept) < params.top_p * total and len(kept) < len(order):
        kept.append(order[len(kept)])
    mass = math.fsum(weights[token] for token in kept)
    return [(token, weights[token] / mass) for token in kept]


@settings(max_examples=400, deadline=None)
@given(logits_rows, sampling_params, st.floats(0, 1, exclude_max=True))
def test_draw_is_the_quantile_of_the_filtered_distribution(logits: Floats, params: SamplingParams, u: float) -> None:
    token = draw_token(logits, params, u)
    below = 0.0
    intervals = {}
    for kept, probability in reference_distribution(logits, params):
        intervals[kept] = (below, below + probability)
        below += probability
    # float32 probabilities shift an interval's ends a little; a token outside the kept ones is never right.
    low, high = intervals[token]
    assert low - 1e-5 <= u <= high + 1e-5


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        SamplingParams(temperature=0.6),
        SamplingParams(temperature=1.7, top_k=7),
        SamplingParams(top_p=0.8),
        SamplingParams(temperature=1.3, top_p=0.9, top_k=12),
    ],
    ids=str,
)
def test_frequencies_match_exact_probabilities(params: SamplingParams) -> None:
    logits = np.random.default_rng(0).normal(scale=2.0, size=50).astype(np.float32)
    num_draws = 20_000
    drawn = [draw_token(logits, params, uniform(7, position)) for position in range(num_draws)]
    counts = np.bincount(drawn, minlength=50)
    expected = np.zeros(50)
    for token, probability in reference_distribution(logits, params):
        expected[token] = probability * num_draws
    assert not counts[expected == 0].any()
    kept = expected > 0
    chi_square = ((counts - expected)[kept] ** 2 / expected[kept]).sum()
    degrees = kept.sum() - 1
    assert chi_square < degrees + 6 * math.sqrt(2 * degrees)  # six standard deviations, and the seed is fixed


def test_draw_beyond_the_sorted_head_agrees_with_the_full_order() -> None:
    """A distribution so flat at the bottom that most draws need tokens outside the head."""
    logits = np.full(1000, -12.0, dtype=np.float32)
    logits[500] = 0.0  # probability of about a half; the rest lies deeper than the head
    logits[[3, 999]] = -11.5
    rest = 997 * math.exp(-12) + 2 * math.exp(-11.5)
    assert draw_token(logits, SamplingParams(), 0.5 / (1 + rest)) == 500
    after_best = (1 + 0.5 * math.exp(-11.5)) / (1 + rest)
    assert draw_token(logits, SamplingParams(), after_best) == 3  # ties by token id
    assert draw_token(logits, SamplingParams(), 1 - 1e-12) == 998
    assert draw_token(logits, SamplingParams(top_p=1 - 1e-6, top_k=3), 1 - 1e-12) == 999


def test_equal_logits_keep_the_lowest_ids() -> None:
    logits = np.zeros(10, dtype=np.float32)
    assert {draw_token(logits, SamplingParams(top_k=3), u / 100) for u in range(100)} == {0, 1, 2}
    assert {draw_token(logits, SamplingParams(top_p=0.4), u / 100) for u in range(100)} == {0, 1, 2, 3}


def test_draw_on_a_boundary_goes_to_the_next_token() -> None:
    assert draw_token(np.zeros(4, dtype=np.float32), SamplingParams(), 0.5) == 2


def test_minus_infinity_is_never_drawn() -> None:
    logits = np.array([-math.inf, 1.0, -math.inf, 1.0], dtype=np.float32)
    assert {draw_token(logits, SamplingParams(), u / 100) for u in range(100)} == {1, 3}
    assert draw_token(logits, SamplingParams(top_k=4), 1 - 1e-16) == 3


@pytest.mark.parametrize(
    "params",
    [SamplingParams(top_k=1), SamplingParams(top_p=1e-9), SamplingParams(temperature=1e-300)],
    ids=str,
)
def test_narrowest_filters_take_the_likeliest(params: SamplingParams) -> None:
    logits = np.random.default_rng(1).normal(size=300).astype(np.float32)
    assert {draw_token(logits, params, u / 50) for u in range(50)} == {int(logits.argmax())}


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**40))
def test_uniform_depends_on_seed_and_position_only(seed: int, position: int) -> None:
    number = uniform(seed, position)
    assert 0.0 <= number < 1.0
    assert number == uniform(seed, position)
    assert number != uniform(seed, position + 1)
    assert number != uniform((seed + 1) % 2**63, position)


def test_uniform_is_pinned() -> None:
    """Workers of different versions must continue each other's requests: a change here breaks that."""
    assert [uniform(0, 0), uniform(1, 0), uniform(0, 1)] == [
        0.011546754286331562,
        0.3035680343067586,
        0.5023796042735054,
    ]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.builds(Draw, st.one_of(sampling_params, st.just(SamplingParams(temperature=0.0))), st.integers(0, 5)),
        min_size=1,
        max_size=6,
    ),
    st.data(),
)
def test_row_is_drawn_the_same_in_any_batch(draws: list[Draw], data: st.DataObject) -> None:
    logits = torch.randn(len(draws), 40, generator=torch.Generator().manual_seed(0)) * 3
    together = sample(logits, draws)
    alone = [sample(logits[i : i + 1], draws[i : i + 1])[0] for i in range(len(draws))]
    order = data.draw(st.permutations(range(len(draws))))
    permuted = sample(logits[list(order)], [draws[i] for i in order])
    assert together == alone
    assert permuted == [together[i] for i in order]


def test_greedy_takes_the_first_of_equal_logits() -> None:
    logits = torch.tensor([[0.0, 2.0, 2.0], [3.0, 3.0, 1.0]])
    assert sample(logits, [Draw(SamplingParams(temperature=0.0), 0)] * 2) == [1, 0]
