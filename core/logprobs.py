"""How likely the model held a drawn token and its alternatives. Numbers only; their text is the router's."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Log-probabilities at one position: the logarithm of the softmax of the model's logits as they were.

    Temperature, penalties, biases and filters do not change them. Values are those of float32.

    Attributes:
        token_id: the token that was drawn.
        logprob: of that token.
        top_ids: the likeliest tokens, as many as the request asked for, likeliest first; the drawn one may be
            missing.
        top_logprobs: of those, in the same order.
    """

    token_id: int
    logprob: float
    top_ids: tuple[int, ...] = ()
    top_logprobs: tuple[float, ...] = ()
