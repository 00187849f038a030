import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as arrays

from core.cost import CostModel, Curve, StepShape, chunk_pairs
from worker.cost.fit import Sample, fit_cost, solve_non_negative

TRUTH = CostModel(
    chunk_tokens=512,
    prefill=Curve(((1.0, 0.05), (32.0, 0.06), (128.0, 0.15), (512.0, 0.5))),
    prefill_pair_s=4e-7,
    decode=Curve(((1.0, 0.05), (4.0, 0.09), (64.0, 0.17))),
    decode_context_token_s=5e-6,
)
PROMPTS = [(1, 0), (32, 0), (128, 0), (512, 0), (128, 2048), (32, 4096)]
DECODES = [(1, 16), (4, 64), (64, 1024), (4, 8192), (1, 4096)]
SHAPES = [
    *(StepShape(num_prompt_tokens=n, num_prompt_pairs=chunk_pairs(n, before)) for n, before in PROMPTS),
    *(StepShape(num_sequences=n, num_context_tokens=context) for n, context in DECODES),
]


def numbers(model: CostModel) -> list[float]:
    points = [second for curve in (model.prefill, model.decode) for _, second in curve.points]
    return [*points, model.prefill_pair_s, model.decode_context_token_s]


def test_exact_steps_give_the_coefficients_back() -> None:
    fitted = fit_cost([Sample(shape, TRUTH.step_s(shape)) for shape in SHAPES], 512)
    assert [x for x, _ in fitted.prefill.points] == [1, 32, 128, 512]
    assert [x for x, _ in fitted.decode.points] == [1, 4, 64]
    assert numbers(fitted) == pytest.approx(numbers(TRUTH), rel=1e-6)


def test_noisy_steps_give_the_coefficients_about_back() -> None:
    rng = np.random.default_rng(0)
    samples = [Sample(shape, TRUTH.step_s(shape) * rng.normal(1.0, 0.02)) for shape in SHAPES * 20]
    fitted = fit_cost(samples, 512)
    assert numbers(fitted) == pytest.approx(numbers(TRUTH), rel=0.1)
    for shape in SHAPES:
        assert fitted.step_s(shape) == pytest.approx(TRUTH.step_s(shape), rel=0.02)


def test_larger_step_that_was_measured_faster_does_not_make_the_curve_fall() -> None:
    measured_s = {1: 0.06, 2: 0.04, 4: 0.05}
    samples = [Sample(StepShape(num_sequences=n), step_s) for n, step_s in measured_s.items()]
    fitted = fit_cost([*samples, Sample(SHAPES[0], 0.05)], 512)
    heights = [second for _, second in fitted.decode.points]
    assert heights == sorted(heights)
    assert 0.04 < heights[0] < 0.06


def test_one_step_of_each_kind_is_enough() -> None:
    fitted = fit_cost([Sample(StepShape(num_prompt_tokens=8), 0.5), Sample(StepShape(num_sequences=1), 0.25)], 8)
    assert (fitted.prefill_s(8, 0), fitted.decode_s(1, 0)) == (pytest.approx(0.5), pytest.approx(0.25))


def test_without_contexts_the_curve_holds_it_all() -> None:
    """Otherwise the rise between two sizes would be taken for attention, and long prompts be thought endless."""
    shapes = [StepShape(num_prompt_tokens=n, num_prompt_pairs=chunk_pairs(n, 0)) for n in (128, 512)]
    decode = Sample(StepShape(num_sequences=1, num_context_tokens=1), 0.05)
    fitted = fit_cost([*(Sample(shape, TRUTH.step_s(shape)) for shape in shapes), decode], 512)
    assert (fitted.prefill_pair_s, fitted.decode_context_token_s) == (0.0, 0.0)
    assert [fitted.step_s(shape) for shape in shapes] == pytest.approx([TRUTH.step_s(shape) for shape in shapes])


small_numbers = st.floats(-10, 10, width=16)


@given(
    matrix=arrays.arrays(np.float64, st.tuples(st.integers(1, 8), st.integers(1, 6)), elements=small_numbers),
    data=st.data(),
)
def test_solution_is_not_negative_and_cannot_be_improved(matrix: np.ndarray, data: st.DataObject) -> None:
    """The conditions of Karush, Kuhn and Tucker, which only the minimum of a convex problem meets."""
    target = data.draw(arrays.arrays(np.float64, len(matrix), elements=small_numbers))
    solution = solve_non_negative(matrix, target)
    descent = matrix.T @ (target - matrix @ solution)
    scale = 1e-6 * max(1.0, np.abs(matrix).max() * np.abs(target).max())
    assert (solution >= 0).all()
    assert (descent <= scale).all()
    assert (np.abs(descent[solution > 0]) <= scale).all()
