"""What a load asks for on average: enough to guess how many workers it needs, before anything is simulated."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.errors import ConfigError
from loadtest.arrivals import Arrival
from loadtest.planner.percentile import percentile


@dataclass(frozen=True, slots=True)
class Demand:
    """Of a load.

    Attributes:
        rate: requests per second.
        prompt_tokens: mean.
        prompt_pairs: mean, of pairs of a token and one it attends to; see `core.cost.chunk_pairs`.
        answer_tokens: mean.
        long_prompt_tokens: nine of ten prompts are no longer.
        longest_tokens: prompt and answer of the longest request.
    """

    rate: float
    prompt_tokens: float
    prompt_pairs: float
    answer_tokens: float
    long_prompt_tokens: int
    longest_tokens: int

    @property
    def context_tokens(self) -> float:
        """Of a sequence while it is generated, on average."""
        return self.prompt_tokens + self.answer_tokens / 2


def demand_of(arrivals: Sequence[Arrival]) -> Demand:
    """The demand of a load; what requests share is not taken off.

    Raises:
        ConfigError: there are fewer than two requests, or all come at once.
    """
    num = len(arrivals)
    duration_s = arrivals[-1].at_s - arrivals[0].at_s if arrivals else 0.0
    if duration_s <= 0:
        raise ConfigError(f"a load of {num} requests within {duration_s:g} s has no rate; give it a longer one")
    long_prompt = percentile([arrival.prompt_tokens for arrival in arrivals], 0.9, num)
    assert long_prompt is not None, "every request has a prompt"
    return Demand(
        rate=(num - 1) / duration_s,
        prompt_tokens=sum(arrival.prompt_tokens for arrival in arrivals) / num,
        prompt_pairs=sum(arrival.prompt_tokens**2 for arrival in arrivals) / 2 / num,
        answer_tokens=sum(arrival.answer_tokens for arrival in arrivals) / num,
        long_prompt_tokens=int(long_prompt),
        longest_tokens=max(arrival.prompt_tokens + arrival.answer_tokens for arrival in arrivals),
    )
