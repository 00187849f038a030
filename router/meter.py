"""What the requests of this router experience: rates and times of the last minute, and the demand of the controller.

Not what workers do: they report that themselves. Everything here is counted on the event loop, in constant time.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from core.clock import Clock
from router.observe.request_times import RequestTimes
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
    """Implements `router.observe.request_times.RequestObserver`. Memory is bounded by the window, not by the traffic.

    Args:
        clock: for all times.
        limits: what a request must keep to count as inside them.
    """

    def __init__(self, clock: Clock, limits: Limits) -> None:
        self._limits = limits
        self._ttft = _Samples()
        self._tpot = _Samples()
        self._clock = clock
        self._started_s = self._demand_since_s = clock.now_s()
        self._demand = _Tally()
        self._seconds: deque[tuple[int, _Tally]] = deque()

    # --- from the dispatcher (RequestObserver)

    def arrived(self, times: RequestTimes) -> None:
        """See `RequestObserver.arrived`."""
        for tally in self._tallies(times.arrived_s):
            tally.num_arrived += 1
            tally.arrived_tokens += times.num_prompt_tokens

    def placed(self, times: RequestTimes, num_uncached_tokens: int) -> None:
        """See `RequestObserver.placed`."""
        for tally in self._tallies(times.arrived_s):
            tally.prompt_tokens += num_uncached_tokens
            tally.prompt_tokens_squared += num_uncached_tokens**2

    def received(self, times: RequestTimes, num_new_tokens: int, gap_s: float | None) -> None:
        """See `RequestObserver.received`."""
        tallies = self._tallies(times.last_s)
        for tally in tallies:
            tally.streamed_tokens += num_new_tokens
        if gap_s is None and (ttft_s := times.ttft_s) is not None:
            self._ttft.add(times.last_s, ttft_s)
            for tally in tallies:
                tally.num_first_tokens += 1
                tally.num_ttft_met += ttft_s <= self._limits.ttft_s

    def ended(self, times: RequestTimes) -> None:
        """See `RequestObserver.ended`."""
        now = self._clock.now_s()
        if times.tpot_s is not None and times.is_answered:
            self._tpot.add(now, times.tpot_s)
        keeps_tpot = times.is_answered and (times.tpot_s or 0.0) <= self._limits.tpot_s
        for tally in self._tallies(now):
            tally.num_finished += 1
            tally.answer_tokens += times.num_tokens
            tally.num_judged += not times.is_given_up
            tally.num_failed += not times.is_answered and not times.is_given_up
            tally.num_tpot_met += keeps_tpot
            tally.num_met += keeps_tpot and (times.ttft_s or 0.0) <= self._limits.ttft_s

    # --- to look at

    def report(self) -> MeterReport:
        """The window that ends now."""
        now = self._clock.now_s()
        self._forget(now)
        num_judged = self._total("num_judged")
        span_s = max(min(now - self._started_s, WINDOW_S), 1.0)  # a rate over less says nothing
        return MeterReport(
            requests_per_s=self._total("num_arrived") / span_s,
            prompt_tokens_per_s=self._total("arrived_tokens") / span_s,
            answer_tokens_per_s=self._total("streamed_tokens") / span_s,
            ttft=Percentiles.of(self._ttft.since(now - WINDOW_S)),
            tpot=Percentiles.of(self._tpot.since(now - WINDOW_S)),
            num_judged=num_judged,
            attainment=self._total("num_met") / num_judged if num_judged else None,
            num_failed=self._total("num_failed"),
        )

    def take_demand(self) -> Demand:
        """What happened since the last call, or since the meter began."""
        now, tally = self._clock.now_s(), self._demand
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

    def _tallies(self, now: float) -> Sequence[_Tally]:
        """Where an event of this moment is counted."""
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
