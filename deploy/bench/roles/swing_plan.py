"""A load that swings between long prompts and long answers, sized by what workers say their steps cost. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from core.cost import CostModel

# Three workers: in its heavy segment a half needs more than one of them, which a split for the other half gives it,
# and both together less than two cores have: router, client and the load itself need some of them, too.
HEAVY_WORKERS = 0.95
LIGHT_WORKERS = 0.2
LONG_PROMPT_TOKENS = 1024
LONG_ANSWER_TOKENS = 192
LEAST_TOKENS = 16
BATCH = 48  # sequences of a decode step as the load is sized for: few more fit a worker


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the load, in which all requests are alike.

    Attributes:
        prompt_tokens: of each request, the chat template apart.
        answer_tokens: likewise.
        rate_per_s: requests that come, on average.
    """

    prompt_tokens: int
    answer_tokens: int
    rate_per_s: float


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request to be sent.

    Attributes:
        at_s: after the start.
        prompt_tokens: as of its segment.
        answer_tokens: likewise.
    """

    at_s: float
    prompt_tokens: int
    answer_tokens: int


def swing(cost: CostModel) -> tuple[Segment, Segment, Segment]:
    """From prompt-heavy to answer-heavy and back."""
    prompts = prompt_heavy(cost)
    return prompts, answer_heavy(cost), prompts


def prompt_heavy(cost: CostModel) -> Segment:
    """Long prompts that keep `HEAVY_WORKERS` workers busy, with answers that keep `LIGHT_WORKERS` busy."""
    rate = HEAVY_WORKERS / cost.completion_s(0, LONG_PROMPT_TOKENS)
    answer_tokens = LIGHT_WORKERS / (rate * token_s(cost, LONG_PROMPT_TOKENS))
    return Segment(LONG_PROMPT_TOKENS, max(LEAST_TOKENS, round(answer_tokens)), rate)


def answer_heavy(cost: CostModel) -> Segment:
    """Long answers that keep `HEAVY_WORKERS` workers busy, with prompts that keep about `LIGHT_WORKERS` busy."""
    rate = HEAVY_WORKERS / (LONG_ANSWER_TOKENS * token_s(cost, LONG_ANSWER_TOKENS))
    light = [n for n in range(LEAST_TOKENS, LONG_PROMPT_TOKENS) if rate * cost.completion_s(0, n) <= LIGHT_WORKERS]
    return Segment(max(light, default=LEAST_TOKENS), LONG_ANSWER_TOKENS, rate)


def token_s(cost: CostModel, context_tokens: int) -> float:
    """Seconds that one token takes of a worker, in a step of `BATCH` sequences with so many tokens each."""
    return cost.decode_s(BATCH, BATCH * context_tokens) / BATCH


def arrivals(segments: Sequence[Segment], segment_s: float, seed: int) -> list[Arrival]:
    """When requests come: at random, at each segment's rate, the same for the same seed."""
    random = np.random.default_rng(seed)
    return [
        Arrival(number * segment_s + at_s, segment.prompt_tokens, segment.answer_tokens)
        for number, segment in enumerate(segments)
        for at_s in _poisson(random, segment.rate_per_s, segment_s)
    ]


def _poisson(random: np.random.Generator, rate_per_s: float, duration_s: float) -> Iterator[float]:
    at_s = random.exponential(1 / rate_per_s)
    while at_s < duration_s:
        yield at_s
        at_s += random.exponential(1 / rate_per_s)
