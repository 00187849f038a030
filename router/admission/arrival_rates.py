"""How fast prompts come, by whose turn they are: what waits may be passed by those that come after it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from core.fair_line import Turn

SPAN_S = (
    10.0  # over which rates are means, the latest seconds most: as long as the longest waits, or a few short ones
)
MIN_TOKENS = 1.0  # a turn of which less is left, after its decay, is forgotten


@dataclass(slots=True)
class _Tally:
    """Tokens that came, decayed with their age; since when, and until when that has been done."""

    tokens: float
    first_s: float
    last_s: float


class ArrivalRates:
    """Decayed means. Remembers the turns of the last minutes only.

    Args:
        now_s: the clock.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._tallies: dict[Turn, _Tally] = {}

    def add(self, turn: Turn, num_tokens: int) -> None:
        """A prompt has been accepted."""
        now_s = self._now_s()
        tally = self._tallies.setdefault(turn, _Tally(0.0, now_s, now_s))
        self._decay(tally, now_s)
        tally.tokens += num_tokens

    def passing(self, turn: Turn) -> dict[Turn, float]:
        """Prompt tokens per second of turns that may come before one that is here already."""
        now_s = self._now_s()
        for tally in self._tallies.values():
            self._decay(tally, now_s)
        self._tallies = {each: tally for each, tally in self._tallies.items() if tally.tokens >= MIN_TOKENS}
        return {
            each: tally.tokens / _weight_s(now_s - tally.first_s)
            for each, tally in self._tallies.items()
            if each != turn and each[0] <= turn[0]
        }

    def _decay(self, tally: _Tally, now_s: float) -> None:
        tally.tokens *= math.exp((tally.last_s - now_s) / SPAN_S)
        tally.last_s = now_s


def _weight_s(age_s: float) -> float:
    """Seconds that a steady rate is to be multiplied with for its decayed sum, after so long; never less than one."""
    return max(1.0, SPAN_S * (1 - math.exp(-age_s / SPAN_S)))
