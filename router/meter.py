"""What the requests of this router experience: rates and times of the last minute, and the demand of the controller.

Not what workers do: they report that themselves. Everything here is counted on the event loop, in constant time.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from core.clock import Clock
from router.roles.snapshot import Demand, Limits

WINDOW_S = 60
MAX_SAMPLES = 8192  # of each kind of time: 136 requests a second for the whole window; beyond that, the latest


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Times in seconds that half, 90 % and 99 % of the requests kept to."""

    p50: float
    p90: float
    p99: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Percentiles | None":
        """By nearest rank; None without samples."""
        if not samples:
            return None
        ordered = sorted(samples)
        return cls(*(ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.9, 0.99)))


@dataclass(frozen=True, slots=True)
class MeterReport:
    """The last `WINDOW_S` seconds, or the time since the router started.

    Attributes:
        requests_per_s: that arrived.
        prompt_tokens_per_s: of those.
        answer_tokens_per_s: that arrived from workers.
        ttft: seconds to the first token; None when there was none.
        tpot: mean seconds per token after the first; None when no answer of several tokens has ended.
        num_judged: requests that were answered or failed; those that clients gave up are not judged.
        attainment: share of those that kept both limits; None when there were none.
        num_failed: requests that failed.
    """

    requests_per_s: float
    prompt_tokens_per_s: float
    answer_tokens_per_s: float
    ttft: Percentiles | None
    tpot: Percentiles | None
    num_judged: int
    attainment: float | None
    num_failed: int


@dataclass(slots=True)
class _Tally:
    """Counts of some time; names as in `Demand` where it has them."""

    num_arrived: int = 0
    arrived_tokens: int = 0
    prompt_tokens: int = 0
    prompt_tokens_squared: float = 0.0
    streamed_tokens: int = 0
    num_first_tokens: int = 0
    num_ttft_met: int = 0
    num_finished: int = 0
    answer_tokens: int = 0
    num_tpot_met: int = 0
    num_judged: int = 0
    num_met: int = 0
    num_failed: int = 0


class RequestTimes:
    """One request on its way; the dispatcher says what happens to it, each thing once but for `received`.

    Args:
        meter: that counts.
        num_prompt_tokens: that are to be computed before the next token, cached ones among them.
        arrived_s: see below.
        num_emitted: tokens of its answer that came before, and count as part of its prompt.

    Attributes:
        arrived_s: when it came, on the clock.
    """

    def __init__(self, meter: "RequestMeter", num_prompt_tokens: int, arrived_s: float, num_emitted: int = 0) -> None:
        self._meter = meter
        self.arrived_s = arrived_s
        self._num_emitted = num_emitted
        self._num_tokens = 0  # beyond those
        self._first_s: float | None = None
        self._last_s = arrived_s
        for tally in meter.tallies(arrived_s):
            tally.num_arrived += 1
            tally.arrived_tokens += num_prompt_tokens

    def placed(self, num_uncached_tokens: int) -> None:
        """How many tokens of its prompt must be computed: all, as long as no worker is there to have any."""
        for tally in self._meter.tallies(self.arrived_s):
            tally.prompt_tokens += num_uncached_tokens
            tally.prompt_tokens_squared += num_uncached_tokens**2

    def left_s(self) -> float:
        """Seconds in which its first token must come to be in time; below 0 when late, infinite when it has come."""
        due_s = self.arrived_s + self._meter.limits.ttft_s
        return due_s - self._meter.now_s() if self._first_s is None else math.inf

    def received(self, num_tokens: int) -> None:
        """Its answer has `num_tokens` tokens by now, more than were emitted before."""
        now = self._last_s = self._meter.now_s()
        num_tokens -= self._num_emitted
        num_new, self._num_tokens = num_tokens - self._num_tokens, num_tokens
        tallies = self._meter.tallies(now)
        for tally in tallies:
            tally.streamed_tokens += num_new
        if self._first_s is None:
            self._first_s = now
            ttft_s = now - self.arrived_s
            self._meter.ttft.add(now, ttft_s)
            for tally in tallies:
                tally.num_first_tokens += 1
                tally.num_ttft_met += ttft_s <= self._meter.limits.ttft_s

    def answered(self) -> None:
        """Its answer is complete."""
        assert self._first_s is not None, "an answer has at least one token"
        now, limits = self._meter.now_s(), self._meter.limits
        tpot_s = 0.0
        if self._num_tokens > 1:
            tpot_s = (self._last_s - self._first_s) / (self._num_tokens - 1)
            self._meter.tpot.add(now, tpot_s)
        is_in_time = self._first_s - self.arrived_s <= limits.ttft_s
        for tally in self._end(now):
            tally.num_judged += 1
            tally.num_tpot_met += tpot_s <= limits.tpot_s
            tally.num_met += is_in_time and tpot_s <= limits.tpot_s

    def failed(self, *, is_given_up: bool) -> None:
        """It ended without an answer; its client may have given it up."""
        for tally in self._end(self._meter.now_s()):
            tally.num_judged += not is_given_up
            tally.num_failed += not is_given_up

    def _end(self, now: float) -> Sequence[_Tally]:
        tallies = self._meter.tallies(now)
        for tally in tallies:
            tally.num_finished += 1
            tally.answer_tokens += self._num_tokens
        return tallies


class _Samples:
    """The times of the window, the latest `MAX_SAMPLES` at most."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=MAX_SAMPLES)

    def add(self, now: float, value: float) -> None:
        self._samples.append((now, value))

    def since(self, start_s: float) -> list[float]:
        while self._samples and self._samples[0][0] < start_s:
            self._samples.popleft()
        return [value for _, value in self._samples]


class RequestMeter:
    """Counts requests. Memory is bounded by the window, not by the traffic.

    Args:
        clock: for all times.
        limits: what a request must keep to count as inside them.

    Attributes:
        limits: see above.
        ttft: of `RequestTimes` only.
        tpot: of `RequestTimes` only.
    """

    def __init__(self, clock: Clock, limits: Limits) -> None:
        self.limits = limits
        self.ttft = _Samples()
        self.tpot = _Samples()
        self._clock = clock
        self._started_s = self._demand_since_s = clock.now_s()
        self._demand = _Tally()
        self._seconds: deque[tuple[int, _Tally]] = deque()

    def now_s(self) -> float:
        """Seconds on the meter's clock."""
        return self._clock.now_s()

    def arrived(self, num_prompt_tokens: int, num_emitted: int = 0) -> RequestTimes:
        """A request has come, with so many tokens of its answer; what is returned hears of the rest."""
        return RequestTimes(self, num_prompt_tokens, self.now_s(), num_emitted)

    def report(self) -> MeterReport:
        """The window that ends now."""
        now = self.now_s()
        self._forget(now)
        num_judged = self._total("num_judged")
        span_s = max(min(now - self._started_s, WINDOW_S), 1.0)  # a rate over less says nothing
        return MeterReport(
            requests_per_s=self._total("num_arrived") / span_s,
            prompt_tokens_per_s=self._total("arrived_tokens") / span_s,
            answer_tokens_per_s=self._total("streamed_tokens") / span_s,
            ttft=Percentiles.of(self.ttft.since(now - WINDOW_S)),
            tpot=Percentiles.of(self.tpot.since(now - WINDOW_S)),
            num_judged=num_judged,
            attainment=self._total("num_met") / num_judged if num_judged else None,
            num_failed=self._total("num_failed"),
        )

    def take_demand(self) -> Demand:
        """What happened since the last call, or since the meter began."""
        now, tally = self.now_s(), self._demand
        duration_s = now - self._demand_since_s
        self._demand, self._demand_since_s = _Tally(), now
        return Demand(
            duration_s=duration_s,
            num_arrived=tally.num_arrived,
            prompt_tokens=tally.prompt_tokens,
            prompt_tokens_squared=tally.prompt_tokens_squared,
            num_finished=tally.num_finished,
            answer_tokens=tally.answer_tokens,
            num_first_tokens=tally.num_first_tokens,
            num_ttft_met=tally.num_ttft_met,
            num_tpot_met=tally.num_tpot_met,
        )

    def tallies(self, now: float) -> Sequence[_Tally]:
        """Where an event of this moment is counted; for `RequestTimes` only."""
        second = math.floor(now)
        if not self._seconds or self._seconds[-1][0] < second:
            self._seconds.append((second, _Tally()))
            self._forget(now)
        return self._seconds[-1][1], self._demand

    def _forget(self, now: float) -> None:
        while self._seconds and self._seconds[0][0] < now - WINDOW_S:
            self._seconds.popleft()

    def _total(self, name: str) -> int:
        return sum(getattr(tally, name) for _, tally in self._seconds)
