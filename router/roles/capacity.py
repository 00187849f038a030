"""What a split of the workers would do with the demand to come. Arithmetic only.

Requests are a fluid that runs through two tanks, in steps that grow with their distance in time:

    arrivals --> prompts that wait --(prefill workers)--> sequences that run --(decode workers)--> answers

The first empties as fast as prefill workers compute; what a new prompt finds in it is its TTFT. The second empties
as fast as decode workers generate, by Little's law: a step's time grows with the batch, and sequences stay for as
long as their tokens take. Both begin with what is there now. Requests inside both limits are what is counted, with
smooth limits: the prediction is one of means, and requests spread around them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from router.roles.forecast import Forecast, generating_share
from router.roles.kinds import Kind
from router.roles.snapshot import FleetSnapshot, Limits

NUM_STEPS = 12
STEP_GROWTH = 1.3
"""Each step is longer than the one before: what happens soon is known better, and matters more."""
BACKLOG_PARTS = 4
"""The prompts that wait now are looked at as so many groups of equal age."""
TTFT_SHARPNESS = 6
TPOT_SHARPNESS = 16
"""How abruptly requests fall out of a limit as its mean passes it. TTFT spreads with the queue; TPOT is a mean."""
NEVER_S = 1e6
"""What is predicted where nothing would ever be served: finite, so that it can be written down."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the workers have to do, whoever does it.

    Attributes:
        forecast: what will come.
        limits: to keep.
        backlog: prompts that wait or are being computed, in mean prompts.
        oldest_s: for how long the oldest of them has waited.
        running: sequences that generate.
    """

    forecast: Forecast
    limits: Limits
    backlog: float
    oldest_s: float
    running: float

    @classmethod
    def of(cls, snapshot: FleetSnapshot, forecast: Forecast) -> "Load":
        """What a snapshot shows. Sequences whose prompts still wait count as these, not as running."""
        workers = snapshot.workers
        mean_tokens = max(forecast.prompt_tokens, 1.0)
        backlog = sum(worker.pending_prompt_tokens for worker in workers) / mean_tokens + snapshot.waiting_prompts
        running = generating_share(snapshot) * sum(worker.running_sequences for worker in workers)
        return cls(forecast, snapshot.limits, backlog, snapshot.oldest_waiting_s, running)

    def requests(self, horizon_s: float) -> float:
        """That are in question within a time: a running one has half of its answer left."""
        return self.forecast.arrivals_per_s * horizon_s + self.backlog + self.running / 2


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a split would do.

    Attributes:
        requests: inside both limits, within the horizon.
        ttft_s: mean of the prompts that come.
        tpot_s: mean of the tokens generated.
    """

    requests: float
    ttft_s: float
    tpot_s: float


class Capacity:
    """Weighs splits of one fleet under one load."""

    def __init__(self, kinds: Sequence[Kind], load: Load, horizon_s: float) -> None:
        self._load = load
        self._horizon_s = horizon_s
        first_s = horizon_s * (STEP_GROWTH - 1) / (STEP_GROWTH**NUM_STEPS - 1)
        self._steps_s = [first_s * STEP_GROWTH**index for index in range(NUM_STEPS)]
        self._kinds = kinds
        self._prompt_s = [self._service_s(kind) for kind in kinds]
        self._first_s = [self._alone_s(kind) for kind in kinds]
        self._places = [kind.places(load.forecast.context_tokens) for kind in kinds]
        self._in_time = [self._batch_in_time(index) for index in range(len(kinds))]

    def outlook(self, prefill: Sequence[float], decode: Sequence[float]) -> Outlook:
        """Predicts a split.

        Args:
            prefill: workers for prompts, of each kind; a mixed one is half a worker of either.
            decode: workers for tokens, of each kind.
        """
        if not any(prefill) or not any(decode):
            return Outlook(0.0, 0.0 if any(prefill) else NEVER_S, 0.0 if any(decode) else NEVER_S)
        rate = sum(number / prompt_s for number, prompt_s in zip(prefill, self._prompt_s, strict=True))
        first_s = sum(n * a / s for n, a, s in zip(prefill, self._first_s, self._prompt_s, strict=True)) / rate
        return self._run(rate, first_s, self._noise_s(rate, sum(prefill)), decode)

    # --- one kind

    def _service_s(self, kind: Kind) -> float:
        """Seconds of a worker that a mean prompt takes among others."""
        forecast = self._load.forecast
        attention_s = kind.cost.prefill_pair_s * forecast.prompt_tokens_squared / 2
        return max(max(forecast.prompt_tokens, 1.0) * kind.prompt_token_s() + attention_s, 1e-9)

    def _alone_s(self, kind: Kind) -> float:
        """Seconds until a mean prompt that waits for nobody is computed."""
        return kind.cost.completion_s(0, max(1, round(self._load.forecast.prompt_tokens)))

    def _batch_in_time(self, index: int) -> float:
        """The largest batch that keeps the limit of TPOT; by these, sequences are shared among kinds."""
        kind, context = self._kinds[index], self._load.forecast.context_tokens
        low, high = 0.0, self._places[index]
        if kind.decode_step_s(high, context) <= self._load.limits.tpot_s:
            return high
        for _ in range(10):
            middle = (low + high) / 2
            in_time = kind.decode_step_s(middle, context) <= self._load.limits.tpot_s
            low, high = (middle, high) if in_time else (low, middle)
        return high

    # --- the two tanks

    def _noise_s(self, rate: float, num_workers: float) -> float:
        """Mean wait that comes of prompts coming by chance, in any queue of several workers (Sakasegawa, 1977).

        Near saturation it would take longer than the horizon to build up: there, diffusion bounds it.
        """
        forecast = self._load.forecast
        num_workers = max(num_workers, 1.0)
        prompt_s = num_workers / rate
        spread = forecast.prompt_tokens_squared / max(forecast.prompt_tokens, 1.0) ** 2
        used = min(forecast.arrivals_per_s / rate, 1.0)
        spare = max(1 - used, math.sqrt(prompt_s / (num_workers * self._horizon_s)))
        busy: float = used ** math.sqrt(2 * (num_workers + 1))
        return prompt_s * spread / 2 * busy / (num_workers * spare)

    def _run(self, rate: float, first_s: float, noise_s: float, decode: Sequence[float]) -> Outlook:
        load, arrivals = self._load, self._load.forecast.arrivals_per_s
        waiting, running = load.backlog, load.running
        in_time, ttft_sum = self._backlog_in_time(rate), 0.0
        tokens = tokens_in_time = tpot_sum = 0.0
        for step_s in self._steps_s:
            ttft_s = math.hypot(waiting / rate, noise_s) + first_s
            in_time += arrivals * step_s * _share(ttft_s / load.limits.ttft_s, TTFT_SHARPNESS)
            ttft_sum += ttft_s * step_s
            flow = min(rate, arrivals + waiting / step_s)
            waiting = max(0.0, waiting + (arrivals - flow) * step_s)

            tokens_per_s, tpot_s = self._generation(running, decode)
            generated = tokens_per_s * step_s
            tokens += generated
            tokens_in_time += generated * _share(tpot_s / load.limits.tpot_s, TPOT_SHARPNESS)
            tpot_sum += generated * tpot_s
            stay_s = tpot_s * load.forecast.answer_tokens
            running = flow * stay_s + (running - flow * stay_s) * math.exp(-step_s / stay_s)
        share = tokens_in_time / tokens if tokens else 1.0
        return Outlook(
            requests=share * (in_time + load.running / 2),
            ttft_s=min(ttft_sum / self._horizon_s, NEVER_S),
            tpot_s=min(tpot_sum / tokens if tokens else self._generation(0.0, decode)[1], NEVER_S),
        )

    def _backlog_in_time(self, rate: float) -> float:
        """Of the prompts that wait now, those that get their first token in time: the oldest comes first."""
        load = self._load
        parts = [(index + 0.5) / BACKLOG_PARTS for index in range(BACKLOG_PARTS)]
        ttfts_s = [load.oldest_s * (1 - part) + load.backlog * part / rate for part in parts]
        shares = [_share(ttft_s / load.limits.ttft_s, TTFT_SHARPNESS) for ttft_s in ttfts_s]
        return load.backlog * sum(shares) / BACKLOG_PARTS

    def _generation(self, running: float, decode: Sequence[float]) -> tuple[float, float]:
        """Tokens per second of all, and seconds per token of each; who waits for a place counts as slow."""
        context = self._load.forecast.context_tokens
        filled = running / sum(n * batch for n, batch in zip(decode, self._in_time, strict=True))
        tokens_per_s = 0.0
        for index, number in enumerate(decode):
            if number:
                batch = min(filled * self._in_time[index], self._places[index])
                step_s = self._kinds[index].decode_step_s(batch, context)
                tokens_per_s += number * batch / max(step_s, 1e-9)
        idle_s = min(k.decode_step_s(1, context) for k, n in zip(self._kinds, decode, strict=True) if n)
        return tokens_per_s, max(running / tokens_per_s if tokens_per_s else idle_s, 1e-9)


def _share(ratio: float, sharpness: int) -> float:
    """The part of requests inside a limit when their mean is `ratio` of it: half at 1."""
    return 1 / (1 + min(ratio, 1e3) ** sharpness)
