"""How the next token is chosen. Parameters only; the arithmetic is in `engine.sampling`."""

from dataclasses import dataclass

from core.errors import InvalidRequestError

MAX_TEMPERATURE = 2.0  # OpenAI's documented upper bound for `temperature`
SEED_BITS = 63  # what fits a signed 64-bit field on the wire
MAX_SEED = 2**SEED_BITS - 1
MAX_PENALTY = 2.0  # OpenAI's, for presence and frequency, either sign
# A factor between a hundredth and a hundred leaves every logit finite in float32; useful ones are near 1.
MIN_REPETITION_PENALTY = 0.01
MAX_REPETITION_PENALTY = 100.0
MAX_BIAS = 100.0  # OpenAI's, either sign
MAX_BIASED_TOKENS = 1024  # vLLM's; OpenAI allows 300
MAX_LOGPROBS = 20  # OpenAI's and vLLM's


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Validated sampling parameters of one request; names and meaning are vLLM's.

    Attributes:
        temperature: 0 means greedy; otherwise logits are divided by it. At most 2.
        top_p: keep the smallest set of tokens whose probabilities sum to at least this, in (0, 1].
        top_k: keep only the k most likely tokens; 0 keeps all.
        seed: key of the counter-based generator; together with a token's position it determines the draw, so
            that another worker continues the request the same way. In [0, 2**63).
        min_p: keep only tokens at least this times as likely as the likeliest, in [0, 1]; 0 keeps all.
        repetition_penalty: divides positive and multiplies negative logits of tokens in prompt or answer; 1 is off.
        presence_penalty: subtracted from the logits of tokens in the answer, in [-2, 2].
        frequency_penalty: the same, times how often the token is in the answer.
        logit_bias: (token id, added to its logit), by token id; added values are in [-100, 100].
        bad_words: sequences of token ids that the answer does not contain.
        min_tokens: stop tokens are not drawn before so many tokens are generated.
        logprobs: how many of the likeliest tokens are reported with every token, and the token itself, by the
            logarithm of their probability before any of the above; None reports nothing. At most 20.

    Raises:
        InvalidRequestError: on construction, naming the field and its value.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    bad_words: tuple[tuple[int, ...], ...] = ()
    min_tokens: int = 0
    logprobs: int | None = None

    def __post_init__(self) -> None:
        _check_range("temperature", self.temperature, 0.0, MAX_TEMPERATURE)
        if not (0.0 < self.top_p <= 1.0):
            raise InvalidRequestError(f"top_p is {self.top_p}; it must be above 0 and at most 1", param="top_p")
        if self.top_k < 0:
            raise InvalidRequestError(
                f"top_k is {self.top_k}; it must be 0 (off) or a positive number of tokens", param="top_k"
            )
        if not (0 <= self.seed <= MAX_SEED):
            raise InvalidRequestError(f"seed is {self.seed}; it must be between 0 and {MAX_SEED}", param="seed")
        _check_range("min_p", self.min_p, 0.0, 1.0)
        _check_range("repetition_penalty", self.repetition_penalty, MIN_REPETITION_PENALTY, MAX_REPETITION_PENALTY)
        _check_range("presence_penalty", self.presence_penalty, -MAX_PENALTY, MAX_PENALTY)
        _check_range("frequency_penalty", self.frequency_penalty, -MAX_PENALTY, MAX_PENALTY)
        self._check_bias()
        self._check_bad_words()
        if self.min_tokens < 0:
            raise InvalidRequestError(
                f"min_tokens is {self.min_tokens}; it must be 0 (off) or a positive number of tokens",
                param="min_tokens",
            )
        if self.logprobs is not None:
            _check_range("logprobs", self.logprobs, 0, MAX_LOGPROBS)

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature == 0.0

    @property
    def has_penalties(self) -> bool:
        """Whether tokens of the prompt or the answer are treated differently."""
        return self.repetition_penalty != 1.0 or self.presence_penalty != 0.0 or self.frequency_penalty != 0.0

    def _check_bias(self) -> None:
        if len(self.logit_bias) > MAX_BIASED_TOKENS:
            raise InvalidRequestError(
                f"logit_bias has {len(self.logit_bias)} tokens; at most {MAX_BIASED_TOKENS} are accepted",
                param="logit_bias",
            )
        for token_id, bias in self.logit_bias:
            if not -MAX_BIAS <= bias <= MAX_BIAS:
                raise InvalidRequestError(
                    f"logit_bias of token {token_id} is {bias}; it must be between {-MAX_BIAS:g} and {MAX_BIAS:g}",
                    param="logit_bias",
                )

    def _check_bad_words(self) -> None:
        if () in self.bad_words:
            raise InvalidRequestError("bad_words has an empty word; leave it out", param="bad_words")


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # NaN is in no range
        raise InvalidRequestError(f"{name} is {value}; it must be between {low:g} and {high:g}", param=name)
