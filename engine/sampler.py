"""Choosing tokens from logits. A draw depends on the row, its parameters and its position; on nothing else.

Randomness comes from a counter-based generator (Philox: Salmon et al., "Parallel random numbers: as easy as 1, 2,
3", SC'11) with the request's seed as key and the token's position as counter. It has no state to hand over, so
another worker draws the same.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from core.sampling import SamplingParams
from engine.plan import Draw

# Below this a temperature is as good as greedy, and dividing by it would overflow float32.
MIN_TEMPERATURE = 1e-5
# Tokens less likely than exp(-this) times the likeliest are sorted only when the draw turns out to need them.
HEAD_DEPTH = 8.0

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


def uniform(seed: int, position: int) -> float:
    """The random number in [0, 1) of a position (of the answer) under a seed; 53 random bits."""
    # Raw bits: numpy promises them for all versions, but not what a Generator makes of them.
    return (np.random.Philox(key=seed, counter=position).random_raw() >> 11) * 2.0**-53


def sample(logits: Tensor, draws: Sequence[Draw]) -> list[int]:
    """Chooses one token per row.

    Args:
        logits: `[num_draws, vocab_size]` float32, on any device, finite or minus infinity.
        draws: how to choose, one per row.

    Returns:
        Token ids. Greedy rows take the first of the largest logits; the others are drawn on the CPU.
    """
    assert len(logits) == len(draws), f"{len(draws)} draws from {len(logits)} rows of logits"
    sampled = [row for row, draw in enumerate(draws) if not draw.params.is_greedy]
    tokens: list[int] = [0] * len(draws) if len(sampled) == len(draws) else logits.argmax(dim=-1).tolist()
    if sampled:
        rows: Floats = logits[torch.tensor(sampled, device=logits.device)].cpu().numpy()
        for row, values in zip(sampled, rows, strict=True):
            tokens[row] = draw_token(values, draws[row].params, uniform(draws[row].params.seed, draws[row].position))
    return tokens


def draw_token(logits: Floats, params: SamplingParams, u: float) -> int:
    """The token at quantile `u` of the filtered distribution, most likely tokens first, ties by token id.

    Top-k applies to the distribution after temperature, top-p to what top-k left, renormalised. Probabilities are
    float32, their sums float64.

    Args:
        logits: `[vocab_size]`.
        params: not greedy.
        u: in [0, 1).
    """
    depths = (logits.max() - logits) / np.float32(max(params.temperature, MIN_TEMPERATURE))  # [vocab_size], from 0
    total = float(np.exp(-depths).sum(dtype=np.float64))
    for limit in (_first_limit(depths, params.top_k), np.inf):
        token_ids, cumulative = _head(depths, limit)
        index = _quantile(cumulative, total, params, u, is_whole=len(token_ids) == len(logits))
        if index is not None:
            return int(token_ids[index])
    raise AssertionError("the whole vocabulary always holds the quantile")


def _first_limit(depths: Floats, top_k: int) -> float:
    """A depth that probably holds the draw; with top-k, one that surely does: that of the k-th token."""
    if 0 < top_k < len(depths):
        return float(np.partition(depths, top_k - 1)[top_k - 1])
    return HEAD_DEPTH


def _head(depths: Floats, limit: float) -> tuple[Ints, npt.NDArray[np.float64]]:
    """Token ids no deeper than `limit`, likeliest first, and their cumulative unnormalised probabilities.

    Whatever the limit, it is the beginning of the same order, so a higher one only adds to its end.
    """
    token_ids = np.flatnonzero(depths <= limit)
    # The bits of floats from zero up order like the floats. With the id below them all keys differ, so numpy's
    # vectorised sort, which is not stable, has one result; several times as fast as a stable argsort.
    keys = depths[token_ids].view(np.uint32).astype(np.uint64) << np.uint64(32) | token_ids.astype(np.uint64)
    keys.sort()
    token_ids = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    return token_ids, np.exp(-depths[token_ids]).cumsum(dtype=np.float64)


def _quantile(
    cumulative: npt.NDArray[np.float64], total: float, params: SamplingParams, u: float, *, is_whole: bool
) -> int | None:
    """Index of the token that `u` falls on, or None if that needs tokens beyond this head.

    0 ......... top-p cut ......... top-k cut ......... head ......... vocabulary
    [  u * mass of this part  )
    """
    num_kept = len(cumulative)
    if params.top_k:
        if params.top_k > num_kept and not is_whole:
            return None
        num_kept = min(params.top_k, num_kept)
        total = float(cumulative[num_kept - 1])
        is_whole = True  # what lies beyond is filtered out
    target = u * total
    if params.top_p < 1.0:
        cut = int(np.searchsorted(cumulative[:num_kept], params.top_p * total))  # first whose sum reaches top_p
        if cut >= num_kept and not is_whole:
            return None
        num_kept = min(cut + 1, num_kept)
        target = u * float(cumulative[num_kept - 1])
        is_whole = True
    index = int(np.searchsorted(cumulative[:num_kept], target, side="right"))  # first whose sum exceeds the target
    if index >= num_kept and not is_whole:
        return None
    return min(index, num_kept - 1)  # rounding may leave the target just above the last sum
