"""What changes the logits of one sequence before a token is drawn: bias, penalties, and tokens that must not come.

Whoever keeps the sequence keeps its rules and tells them every token; the engine only reads them, through `Draw`.
"""

from collections.abc import Collection, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from core.sampling import SamplingParams
from engine.sampling.bad_words import BadWordMatcher
from engine.sampling.counts import Ints, TokenCounts

Floats = npt.NDArray[np.float32]


class LogitRules:
    """The rules of one sequence, up to date with its answer.

    Attributes:
        params: the request's parameters.
        counts: for the penalties; None without any.
        bias_ids: `[num_biased]` int64 token ids.
        biases: `[num_biased]` float32, added to the logits of those.
    """

    def __init__(self, params: SamplingParams, stop_token_ids: Collection[int], counts: TokenCounts | None) -> None:
        self.params = params
        self.counts = counts
        self.bias_ids: Ints = np.array([token_id for token_id, _ in params.logit_bias], dtype=np.int64)
        self.biases: Floats = np.array([bias for _, bias in params.logit_bias], dtype=np.float32)
        self._stop_token_ids = frozenset(stop_token_ids)
        self._bad_words = BadWordMatcher(params.bad_words) if params.bad_words else None

    @classmethod
    def of(
        cls, params: SamplingParams, stop_token_ids: Collection[int], prompt: Sequence[int], num_answered: int
    ) -> Self | None:
        """The rules of a sequence; None when its logits are drawn from as they are, as most are.

        Args:
            params: the request's parameters.
            stop_token_ids: tokens that are masked until `params.min_tokens` are generated.
            prompt: the token ids so far, which end with the answer of earlier attempts.
            num_answered: how many tokens that answer has.
        """
        is_too_short = num_answered < params.min_tokens and len(stop_token_ids) > 0
        if not (params.has_penalties or params.logit_bias or params.bad_words or is_too_short):
            return None
        num_prompt = len(prompt) - num_answered
        counted = prompt[:num_prompt] if params.repetition_penalty != 1.0 else ()
        rules = cls(params, stop_token_ids, TokenCounts(counted) if params.has_penalties else None)
        for token_id in prompt[num_prompt:]:
            rules.append(token_id)
        return rules

    def append(self, token_id: int) -> None:
        """Takes the next token of the answer; must be told every one, in order."""
        if self.counts is not None:
            self.counts.add(token_id)
        if self._bad_words is not None:
            self._bad_words.add(token_id)

    def masked_ids(self, position: int) -> set[int]:
        """Token ids that must not be drawn at a position of the answer."""
        completing = set() if self._bad_words is None else self._bad_words.completing()
        return completing | self._stop_token_ids if position < self.params.min_tokens else completing
