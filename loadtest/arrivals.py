"""Requests of a simulated load: when they come, how long they are, what they share. Not where they are served."""

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request.

    Attributes:
        at_s: when it comes, in seconds since the start.
        prompt_tokens: at least one.
        answer_tokens: at least one.
        block_ids: of the prompt's blocks of `WorkerSpec.prefix_block_tokens` tokens each, first to last; equal ids
            after equal ids are equal tokens. Empty when nothing is shared.
    """

    at_s: float
    prompt_tokens: int
    answer_tokens: int
    block_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Segment:
    """A time in which all requests are of one kind; lengths are uniform between both bounds, these included.

    Attributes:
        duration_s: how long it lasts.
        prompt_tokens: least and most.
        answer_tokens: least and most.
    """

    duration_s: float
    prompt_tokens: tuple[int, int]
    answer_tokens: tuple[int, int]


def segmented_arrivals(segments: Sequence[Segment], rate: float, seed: int) -> list[Arrival]:
    """Poisson arrivals through segments one after the other, the same for the same seed.

    Numbers are drawn as Narwhal's demo draws them (see `loadtest.presets.arrow`), so that its loads are these. A gap
    that reaches into the next segment brings no request; the next gap counts from where it ended.

    Args:
        segments: in order.
        rate: requests per second.
        seed: of Python's generator.
    """
    draws = random.Random(seed)  # noqa: S311 - a load, no secret
    arrivals: list[Arrival] = []
    now_s = end_s = 0.0
    for segment in segments:
        end_s += segment.duration_s
        while (now_s := now_s + draws.expovariate(rate)) < end_s:
            lengths = draws.randint(*segment.prompt_tokens), draws.randint(*segment.answer_tokens)
            arrivals.append(Arrival(now_s, *lengths))
    return arrivals
