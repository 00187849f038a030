"""Applies the rules of a batch's sequences to its logits: what happens between the model and the draw."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from core.sampling import SamplingParams
from engine.plan import Draw
from engine.sampling.counts import Ints, TokenCounts
from engine.sampling.rules import Floats, LogitRules


def adjust(logits: Tensor, draws: Sequence[Draw]) -> None:
    """Adds biases, then applies penalties, then masks, in place; rows without rules are not touched.

    The outcome is that of vLLM, which masks first: to a masked token the rest makes no difference. A row whose every
    token would be masked is not masked: something must be drawn, and so it is what would be drawn anyway.

    Args:
        logits: `[num_draws, vocab_size]` float32, finite or minus infinity.
        draws: one per row.
    """
    rules = [(row, draw.rules) for row, draw in enumerate(draws) if draw.rules is not None]
    if not rules:
        return
    _add_biases(logits, [(row, rule) for row, rule in rules if len(rule.biases)])
    _penalize(logits, [(row, rule.params, rule.counts) for row, rule in rules if rule.counts is not None])
    masked = [(row, rule.masked_ids(draws[row].position)) for row, rule in rules]
    _mask(logits, [(row, token_ids) for row, token_ids in masked if token_ids])


def _add_biases(logits: Tensor, rules: list[tuple[int, LogitRules]]) -> None:
    if rules:
        places = _places(logits, [(row, rule.bias_ids) for row, rule in rules])
        logits[places] += _flat(logits, [rule.biases for _, rule in rules])


def _penalize(logits: Tensor, counted: list[tuple[int, SamplingParams, TokenCounts]]) -> None:
    if not counted:
        return
    places = _places(logits, [(row, counts.token_ids) for row, _, counts in counted])
    occurrences = _flat(logits, [counts.counts.astype(np.float32) for _, _, counts in counted])
    penalties = [(p.repetition_penalty, p.frequency_penalty, p.presence_penalty) for _, p, _ in counted]
    lengths = [len(counts.token_ids) for _, _, counts in counted]
    of_places = np.repeat(np.array(penalties, dtype=np.float32).T, lengths, axis=1)  # [3, num_places]
    repetition, frequency, presence = torch.from_numpy(of_places).to(logits.device)
    values = logits[places]  # [num_places]
    values = torch.where(values > 0, values / repetition, values * repetition)
    logits[places] = values - frequency * occurrences - presence * (occurrences > 0)


def _mask(logits: Tensor, masked: list[tuple[int, set[int]]]) -> None:
    """Leaves out ids that the model does not have: a checkpoint may name such a one as its end of sequence."""
    vocab_size = logits.shape[1]
    known = [(row, np.array([i for i in token_ids if i < vocab_size], dtype=np.int64)) for row, token_ids in masked]
    partial = [(row, token_ids) for row, token_ids in known if len(token_ids) < vocab_size]
    if partial:
        logits[_places(logits, partial)] = -torch.inf


def _places(logits: Tensor, token_ids: list[tuple[int, Ints]]) -> tuple[Tensor, Tensor]:
    """Indices of tokens of rows, each row with its own; none twice."""
    rows = np.repeat([row for row, _ in token_ids], [len(ids) for _, ids in token_ids])
    return _flat(logits, [rows]), _flat(logits, [ids for _, ids in token_ids])


def _flat(logits: Tensor, arrays: Sequence[Ints | Floats]) -> Tensor:
    """Arrays, one after the other, on the device of the logits."""
    return torch.from_numpy(np.concatenate(arrays)).to(logits.device)
