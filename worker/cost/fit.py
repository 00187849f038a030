"""Fits a cost model to measured steps: non-negative least squares of relative errors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from core.cost import CostModel, Curve, StepShape

Floats = npt.NDArray[np.float64]
TOLERANCE = 1e-10  # of columns of length 1 and targets of 1: far below any measurement, far above rounding
ROUNDS_PER_COLUMN = 3  # the authors' limit: it ends within fewer unless rounding makes it go round in circles


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured step, of prompt chunks only or of decoding sequences only.

    Attributes:
        shape: what was computed.
        step_s: seconds it took, above 0.
    """

    shape: StepShape
    step_s: float


def fit_cost(samples: Sequence[Sample], chunk_tokens: int) -> CostModel:
    """The model whose predictions differ least from the samples, as shares of them.

    Curves get a point at every size that was measured. Needs at least one sample of each kind.
    """
    prompts = [s for s in samples if s.shape.num_prompt_tokens]
    decodes = [s for s in samples if s.shape.num_sequences]
    prefill, pair_s = _fit_kind(prompts, lambda s: s.num_prompt_tokens, lambda s: s.num_prompt_pairs)
    decode, context_token_s = _fit_kind(decodes, lambda s: s.num_sequences, lambda s: s.num_context_tokens)
    return CostModel(chunk_tokens, prefill, pair_s, decode, context_token_s)


def _fit_kind(
    samples: Sequence[Sample], size: Callable[[StepShape], int], attended: Callable[[StepShape], float]
) -> tuple[Curve, float]:
    """The curve by size, and the seconds per attended token or pair.

    Where every size was measured with one context only, attention cannot be told from the rest: it is in the curve.
    """
    knots = sorted({size(sample.shape) for sample in samples})
    if len({(size(sample.shape), attended(sample.shape)) for sample in samples}) == len(knots):
        attended = _nothing
    rows = [[*_shares(knots, size(sample.shape)), attended(sample.shape)] for sample in samples]
    step_s = np.array([sample.step_s for sample in samples])
    rises = solve_non_negative(np.array(rows) / step_s[:, None], np.ones(len(samples)))
    heights = np.cumsum(rises[:-1])
    return Curve(tuple(zip(map(float, knots), heights.tolist(), strict=True))), float(rises[-1])


def _nothing(_shape: StepShape) -> float:
    return 0.0


def _shares(knots: Sequence[int], number: int) -> list[float]:
    """What `number` takes of the curve's height at the first knot, and of each rise between two knots."""
    return [1.0, *(min(max((number - x0) / (x1 - x0), 0.0), 1.0) for x0, x1 in pairwise(knots))]


def solve_non_negative(matrix: Floats, target: Floats) -> Floats:
    """The x >= 0 for which `matrix @ x` comes closest to `target`.

    The active-set method of Lawson and Hanson, *Solving Least Squares Problems* (1974), chapter 23. Meant for a few
    columns.

    Args:
        matrix: `[num_rows, num_columns]`.
        target: `[num_rows]`.
    """
    lengths = np.linalg.norm(matrix, axis=0)
    lengths[lengths == 0] = 1.0
    columns = matrix / lengths
    solution: Floats = np.zeros(columns.shape[1])
    is_free = np.zeros(columns.shape[1], dtype=bool)
    for _ in range(ROUNDS_PER_COLUMN * len(solution)):
        gradient = columns.T @ (target - columns @ solution)
        gradient[is_free] = 0.0
        if gradient.max() <= TOLERANCE:
            break
        is_free[gradient.argmax()] = True
        solution = _settle(columns, target, solution, is_free)
    scaled: Floats = solution / lengths
    return scaled


def _settle(columns: Floats, target: Floats, solution: Floats, is_free: npt.NDArray[np.bool_]) -> Floats:
    """The best solution over free columns; those that would turn negative are bound to 0 again."""
    while True:
        best: Floats = np.zeros_like(solution)
        best[is_free] = np.linalg.lstsq(columns[:, is_free], target, rcond=None)[0]
        negative = is_free & (best <= 0)
        if not negative.any():
            return best
        step = (solution[negative] / (solution[negative] - best[negative])).min()
        solution = solution + step * (best - solution)
        is_free &= solution > TOLERANCE
        solution[~is_free] = 0.0
