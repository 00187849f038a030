"""What a load asks for on average: enough to guess how many workers it needs, before anything is simulated."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from core.cost import chunk_pairs
from core.errors import ConfigError
from loadtest.arrivals import Arrival
from loadtest.planner.percentile import percentile


@dataclass(frozen=True, slots=True)
class Demand:
    """Of a load. Tokens are *new* that no earlier prompt had: a cache without end, and one for all, has the others.

    Attributes:
        rate: requests per second.
        prompt_tokens: mean.
        new_tokens: mean, of prompts.
        new_pairs: mean, of a new token and one that it attends to; see `core.cost.chunk_pairs`.
        answer_tokens: mean.
        long_new_tokens: new tokens that no more than a wanted share of the prompts have.
        longest_tokens: prompt and answer of the longest request.
    """

    rate: float
    prompt_tokens: float
    new_tokens: float
    new_pairs: float
    answer_tokens: float
    long_new_tokens: int
    longest_tokens: int

    @property
    def context_tokens(self) -> float:
        """Of a sequence while it is generated, on average."""
        return self.prompt_tokens + self.answer_tokens / 2


def demand_of(arrivals: Sequence[Arrival], share: float, block_tokens: int) -> Demand:
    """The demand of a load.

    Args:
        arrivals: in order of time.
        share: of prompts, for `long_new_tokens`.
        block_tokens: of each block that `Arrival.block_ids` names.

    Raises:
        ConfigError: there are fewer than two requests, or all come at once.
    """
    num, rate = len(arrivals), rate_of(arrivals)
    new_tokens = list(_new_tokens(arrivals, block_tokens))
    long_new_tokens = percentile(new_tokens, share, num)
    assert long_new_tokens is not None, "every request has a prompt"
    pairs = [chunk_pairs(new, one.prompt_tokens - new) for new, one in zip(new_tokens, arrivals, strict=True)]
    return Demand(
        rate=rate,
        prompt_tokens=sum(arrival.prompt_tokens for arrival in arrivals) / num,
        new_tokens=sum(new_tokens) / num,
        new_pairs=sum(pairs) / num,
        answer_tokens=sum(arrival.answer_tokens for arrival in arrivals) / num,
        long_new_tokens=int(long_new_tokens),
        longest_tokens=max(arrival.prompt_tokens + arrival.answer_tokens for arrival in arrivals),
    )


def rate_of(arrivals: Sequence[Arrival]) -> float:
    """Requests per second, from the first to the last.

    Raises:
        ConfigError: there are fewer than two, or all come at once.
    """
    num = len(arrivals)
    duration_s = arrivals[-1].at_s - arrivals[0].at_s if arrivals else 0.0
    if duration_s <= 0:
        raise ConfigError(f"a load of {num} requests within {duration_s:g} s has no rate; give it a longer one")
    return (num - 1) / duration_s


def _new_tokens(arrivals: Sequence[Arrival], block_tokens: int) -> Iterator[int]:
    """Of each prompt, at least one: the last token is always computed."""
    seen: set[int] = set()
    for arrival in arrivals:
        num_old = next((n for n, block in enumerate(arrival.block_ids) if block not in seen), len(arrival.block_ids))
        seen.update(arrival.block_ids)
        yield max(1, arrival.prompt_tokens - num_old * block_tokens)
