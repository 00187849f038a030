"""Against transformers' logits processors where it has them, and numpy after vLLM's definition where it has not."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
)

from core.sampling import SamplingParams
from engine.plan import Draw
from engine.sampling.adjust import adjust
from engine.sampling.rules import LogitRules

VOCAB = 50
PROMPT = [3, 4, 4, 20]
ANSWER = [7, 8, 7, 7, 31, 8]
STOPS = frozenset({2, 40})


def logits(num_rows: int = 1) -> Tensor:
    return torch.randn(num_rows, VOCAB, generator=torch.Generator().manual_seed(0)) * 5


def draw(answer: list[int] = ANSWER, **params: Any) -> Draw:  # noqa: ANN401 - any field
    parsed = SamplingParams(**params)
    return Draw(parsed, len(answer), LogitRules.of(parsed, STOPS, [*PROMPT, *answer], len(answer)))


def adjusted(**params: Any) -> Tensor:  # noqa: ANN401 - any field
    values = logits()
    adjust(values, [draw(**params)])
    return values[0]


def context() -> Tensor:
    return torch.tensor([[*PROMPT, *ANSWER]])


@pytest.mark.parametrize("penalty", [0.5, 1.3, 100.0])
def test_repetition_penalty_is_that_of_transformers(penalty: float) -> None:
    expected = RepetitionPenaltyLogitsProcessor(penalty)(context(), logits())[0]
    assert torch.allclose(adjusted(repetition_penalty=penalty), expected)


@pytest.mark.parametrize(
    ("frequency", "presence", "repetition"), [(0.5, 0.0, 1.0), (0.0, -2.0, 1.0), (1.5, 0.25, 1.2)]
)
def test_penalties_follow_their_definition(frequency: float, presence: float, repetition: float) -> None:
    expected = logits()[0].double().numpy()
    for token in {*PROMPT, *ANSWER} if repetition != 1.0 else ():
        expected[token] = expected[token] / repetition if expected[token] > 0 else expected[token] * repetition
    for token in set(ANSWER):
        expected[token] -= frequency * ANSWER.count(token) + presence
    values = adjusted(frequency_penalty=frequency, presence_penalty=presence, repetition_penalty=repetition)
    assert np.allclose(values, expected, rtol=1e-6)


def test_bias_is_that_of_transformers() -> None:
    expected = SequenceBiasLogitsProcessor([[[5], 100.0], [[6], -3.5]])(context(), logits())[0]
    assert torch.equal(adjusted(logit_bias=((5, 100.0), (6, -3.5))), expected)


def test_bias_comes_before_the_repetition_penalty() -> None:
    """As in vLLM: a negative logit that a bias makes positive is divided, not multiplied."""
    values = logits()
    values[0, 7] = -1.0
    adjust(values, [draw(logit_bias=((7, 3.0),), repetition_penalty=2.0)])
    assert values[0, 7] == 1.0


@pytest.mark.parametrize("words", [((5,),), ((31, 8, 12),), ((8, 12), (7, 8, 12), (9,)), ((8, 31, 1), (1, 31, 8, 2))])
def test_bad_words_are_those_of_transformers(words: tuple[tuple[int, ...], ...]) -> None:
    processor = NoBadWordsLogitsProcessor([list(word) for word in words], eos_token_id=None)
    expected = processor(torch.tensor([ANSWER]), logits())[0]
    assert torch.equal(adjusted(bad_words=words), expected)


@pytest.mark.parametrize("min_tokens", [len(ANSWER), len(ANSWER) + 1])
def test_min_tokens_is_that_of_transformers(min_tokens: int) -> None:
    processor = MinNewTokensLengthLogitsProcessor(len(PROMPT), min_tokens, list(STOPS), device="cpu")
    assert torch.equal(adjusted(min_tokens=min_tokens), processor(context(), logits())[0])


def test_rows_are_adjusted_by_their_own_rules_only() -> None:
    draws = [
        draw(repetition_penalty=1.5),
        draw(),
        draw(answer=[], presence_penalty=1.0),
        draw(logit_bias=((1, 5.0),), bad_words=((2,),), min_tokens=9),
        draw(answer=[1], frequency_penalty=-1.0, logit_bias=((1, -5.0), (49, 1.0))),
    ]
    together = logits(len(draws))
    adjust(together, draws)
    for i, single in enumerate(draws):
        alone = logits(len(draws))[i : i + 1]
        adjust(alone, [single])
        assert torch.equal(together[i], alone[0])
    assert torch.equal(together[1], logits(len(draws))[1])
    assert torch.equal(together[2], logits(len(draws))[2])


def test_row_whose_every_token_is_masked_is_not_masked() -> None:
    every_token = tuple((token_id,) for token_id in range(VOCAB))
    assert torch.equal(adjusted(bad_words=every_token), logits()[0])
    all_but_one = adjusted(bad_words=every_token[:-1])
    assert torch.isfinite(all_but_one).nonzero().tolist() == [[VOCAB - 1]]


def test_stop_token_outside_the_vocabulary_is_left_out() -> None:
    params = SamplingParams(min_tokens=3)
    values = logits()
    adjust(values, [Draw(params, 0, LogitRules.of(params, {2, VOCAB, 10**6}, PROMPT, 0))])
    assert (values == -math.inf).nonzero().tolist() == [[0, 2]]
