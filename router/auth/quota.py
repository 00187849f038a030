"""How much a key may use: token buckets in this router's memory, so that no token waits for another process."""

import math
from dataclasses import dataclass

from core.clock import Clock
from core.errors import RateLimitedError

MINUTE_S = 60.0
BUSY_RETRY_S = 1.0  # when a running answer ends nobody knows


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """Limits of a key; None for none.

    Attributes:
        requests_per_minute: that are accepted.
        tokens_per_minute: of prompts and answers.
        max_concurrent: requests that are under way at once.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrent: int | None = None


class Bucket:
    """Fills up evenly to a minute's worth; what is taken may make it negative, so that it must be paid back first.

    Args:
        per_minute: units that come in a minute.
        floor: units that must be there before anything is taken; it holds at least so many.
        clock: of the refilling.
    """

    def __init__(self, per_minute: float, floor: float, clock: Clock) -> None:
        self._per_s = per_minute / MINUTE_S
        self._capacity = max(per_minute, floor)
        self._floor = floor
        self._clock = clock
        self._level = self._capacity
        self._at_s = clock.now_s()

    def wait_s(self) -> float:
        """Seconds until something may be taken; 0 for now."""
        now_s = self._clock.now_s()
        self._level = min(self._capacity, self._level + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        return max(0.0, (self._floor - self._level) / self._per_s)

    def take(self, amount: float) -> None:
        """Takes so much, whether it is there or not."""
        self._level -= amount


class Quota:
    """What one key may still use at this router, which enforces an equal share of the limits.

    A request is accepted while there are tokens left, whatever it costs then: an answer is never cut off, and what it
    used beyond the limit has to come in again before the key's next request.

    Args:
        name: of the key, for errors.
        limits: of the key, over all routers.
        num_routers: that share the key's requests, at least one.
        clock: of the refilling.
    """

    def __init__(self, name: str, limits: KeyLimits, num_routers: int, clock: Clock) -> None:
        self.limits = limits
        self._name = name
        self._num_open = 0
        # A share of less than one request would let none in, ever.
        self._max_open = limits.max_concurrent and max(1, limits.max_concurrent // num_routers)
        self._requests = self._bucket(limits.requests_per_minute, num_routers, 1.0, clock)
        self._tokens = self._bucket(limits.tokens_per_minute, num_routers, 1.0, clock)

    @staticmethod
    def _bucket(per_minute: int | None, num_routers: int, floor: float, clock: Clock) -> Bucket | None:
        return None if per_minute is None else Bucket(per_minute / num_routers, floor, clock)

    def begin(self, num_prompt_tokens: int) -> None:
        """Takes what a request costs before its answer; `end` must follow.

        Raises:
            RateLimitedError: a limit is reached; nothing was taken.
        """
        if self._max_open is not None and self._num_open >= self._max_open:
            self._refuse(f"has {self._num_open} requests under way", "max_concurrent", BUSY_RETRY_S)
        for bucket, unit in ((self._requests, "requests_per_minute"), (self._tokens, "tokens_per_minute")):
            if bucket is not None and (wait_s := bucket.wait_s()) > 0:
                self._refuse("has used up its share", unit, wait_s)
        self._num_open += 1
        if self._requests is not None:
            self._requests.take(1)
        self.spend(num_prompt_tokens)

    def go_on(self) -> None:
        """Counts a request that was accepted before, at whichever router: it is not refused. `end` must follow."""
        self._num_open += 1

    def spend(self, num_tokens: int) -> None:
        """Takes tokens that were generated."""
        if self._tokens is not None:
            self._tokens.take(num_tokens)

    def end(self) -> None:
        """A request that has begun is over."""
        assert self._num_open > 0, f"a request of key {self._name} ends that has not begun"
        self._num_open -= 1

    def _refuse(self, what: str, limit: str, wait_s: float) -> None:
        raise RateLimitedError(
            f"API key {self._name} {what}; its {limit} is {getattr(self.limits, limit)}: "
            f"try again in {math.ceil(wait_s)} s",
            retry_after_s=wait_s,
        )
