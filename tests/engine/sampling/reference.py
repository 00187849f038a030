"""Sampling written out in plain Python and numpy, from the definitions: what the tensors are compared with."""

import math

import numpy as np
import numpy.typing as npt

from core.sampling import SamplingParams

Floats = npt.NDArray[np.float32]


def distribution(logits: Floats, params: SamplingParams) -> list[tuple[int, float]]:
    """(token id, probability) of what temperature, min-p, top-k and top-p keep, in the order of the draw."""
    best = float(max(logits))
    weights = [math.exp((float(value) - best) / max(params.temperature, 1e-5)) for value in logits]
    # What is less likely than 2**-40 of the likeliest token is not drawn at all.
    weights = [weight if weight >= max(params.min_p, 2.0**-40) else 0.0 for weight in weights]
    order = sorted(range(len(weights)), key=lambda token: (-weights[token], token))
    order = order[: params.top_k or None]
    total = math.fsum(weights[token] for token in order)
    kept: list[int] = []
    while math.fsum(weights[token] for token in kept) < params.top_p * total and len(kept) < len(order):
        kept.append(order[len(kept)])
    kept = [token for token in kept if weights[token] > 0]
    mass = math.fsum(weights[token] for token in kept)
    uses_order = params.top_p < 1.0 or 0 < params.top_k < len(weights)
    return [(token, weights[token] / mass) for token in (kept if uses_order else sorted(kept))]


def intervals(logits: Floats, params: SamplingParams) -> dict[int, tuple[float, float]]:
    """The numbers that fall on each token that is kept."""
    below = 0.0
    found = {}
    for token, probability in distribution(logits, params):
        found[token] = (below, below + probability)
        below += probability
    return found
