"""How the next token is chosen. Parameters only; the arithmetic is `engine.sampler`'s."""

import math
from dataclasses import dataclass

from core.errors import InvalidRequestError

MAX_TEMPERATURE = 2.0  # OpenAI's documented upper bound for `temperature`
MAX_SEED = 2**63 - 1  # what fits a signed 64-bit field on the wire


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Validated sampling parameters of one request.

    Attributes:
        temperature: 0 means greedy; otherwise logits are divided by it. At most 2.
        top_p: keep the smallest set of tokens whose probabilities sum to at least this, in (0, 1].
        top_k: keep only the k most likely tokens; 0 keeps all.
        seed: key of the counter-based generator; together with a token's position it determines the draw, so
            that another worker continues the request the same way. In [0, 2**63).

    Raises:
        InvalidRequestError: on construction, naming the field and its value.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and 0.0 <= self.temperature <= MAX_TEMPERATURE):
            raise InvalidRequestError(
                f"temperature is {self.temperature}; it must be between 0 and {MAX_TEMPERATURE:g}",
                param="temperature",
            )
        if not (0.0 < self.top_p <= 1.0):
            raise InvalidRequestError(f"top_p is {self.top_p}; it must be above 0 and at most 1", param="top_p")
        if self.top_k < 0:
            raise InvalidRequestError(
                f"top_k is {self.top_k}; it must be 0 (off) or a positive number of tokens", param="top_k"
            )
        if not (0 <= self.seed <= MAX_SEED):
            raise InvalidRequestError(f"seed is {self.seed}; it must be between 0 and {MAX_SEED}", param="seed")

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature == 0.0
