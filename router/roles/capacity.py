"""What a split of the workers would do with the demand to come. Arithmetic only.

Requests are a fluid that runs through two tanks, in steps that grow with their distance in time:

    arrivals --> prompts that wait --(prefill workers)--> sequences that run --(decode workers)--> answers

The first empties as fast as prefill workers compute; what a new prompt finds in it is its TTFT. The second empties
as fast as decode workers generate, by Little's law: a step's time grows with the batch, and sequences stay for as
long as their tokens take. Both begin with what is there now. Requests inside both limits are what is counted, with
smooth limits: the prediction is one of means, and requests spread around them.

A mixed worker is a decode worker that also empties the first tank, in the time that the limit leaves its sequences.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from core.cost import STEP_SHARE
from router.roles.forecast import Forecast, generating_share, num_prompts
from router.roles.kinds import Kind, Kinds
from router.roles.snapshot import FleetSnapshot, Limits

NUM_STEPS = 10
STEP_GROWTH = 1.2
"""Each step is longer than the one before: what happens soon is known better, and matters more."""
BACKLOG_PARTS = 4
"""The prompts that wait now are looked at as so many groups of equal age."""
TTFT_SHARPNESS = 6
TPOT_SHARPNESS = 16
"""How abruptly requests fall out of a limit as its mean passes it. TTFT spreads with the queue; TPOT is a mean."""
LEAST_SHARE = 0.01
"""Of a mixed worker's time, what prompts get at least: a step has a few of their tokens whatever the limit."""
NEVER_S = 1e6
"""What is predicted where nothing would ever be served: finite, so that it can be written down."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the workers have to do, whoever does it.

    Attributes:
        forecast: what will come.
        limits: to keep.
        backlog: prompts that wait or are being computed.
        backlog_tokens: of these, still to be computed.
        oldest_s: for how long the oldest that can be in time has waited.
        running: sequences that generate.
        running_context: tokens these attend to, in sum.
    """

    forecast: Forecast
    limits: Limits
    backlog: float
    backlog_tokens: float
    oldest_s: float
    running: float
    running_context: float

    @classmethod
    def of(cls, snapshot: FleetSnapshot, forecast: Forecast, kinds: Kinds) -> "Load":
        """What a snapshot shows. Sequences whose prompts are not computed count as these, not as running.

        What a worker cannot compute within the limit of TTFT does not count: it is late whatever happens, and
        placement sends what can still be in time elsewhere.
        """
        workers = snapshot.workers
        context = sum(worker.context_tokens - worker.pending_prompt_tokens for worker in workers)
        backlog, backlog_tokens = float(snapshot.waiting_prompts), snapshot.waiting_prompts * forecast.prompt_tokens
        for worker in workers:
            if worker.pending_prompt_tokens:
                work_s = worker.pending_prompt_tokens * kinds.of(worker.name).prompt_token_s()
                share = min(1.0, snapshot.limits.ttft_s / work_s)
                backlog += share * num_prompts(worker)
                backlog_tokens += share * worker.pending_prompt_tokens
        return cls(
            forecast=forecast,
            limits=snapshot.limits,
            backlog=backlog,
            backlog_tokens=backlog_tokens,
            oldest_s=min(snapshot.oldest_waiting_s, snapshot.limits.ttft_s),
            running=generating_share(snapshot) * sum(worker.running_sequences for worker in workers),
            running_context=max(0.0, context),
        )

    @property
    def backlog_prompt_tokens(self) -> float:
        """Mean of the prompts that wait."""
        return self.backlog_tokens / self.backlog if self.backlog else 0.0

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
        forecast = load.forecast
        self._kinds = kinds
        self._load = load
        self._horizon_s = horizon_s
        first_s = horizon_s * (STEP_GROWTH - 1) / (STEP_GROWTH**NUM_STEPS - 1)
        self._steps_s = [first_s * STEP_GROWTH**index for index in range(NUM_STEPS)]
        self._new_s = [kind.prompt_s(forecast.prompt_tokens, forecast.prompt_tokens_squared) for kind in kinds]
        waiting_tokens = load.backlog_prompt_tokens
        self._waiting_s = [kind.prompt_s(waiting_tokens, waiting_tokens**2) for kind in kinds]
        self._alone_s = [kind.cost.completion_s(0, max(1, round(forecast.prompt_tokens))) for kind in kinds]
        context = max(forecast.context_tokens, load.running_context / load.running if load.running else 0.0)
        self._in_time = [kind.batch_in_time(load.limits.tpot_s, context) for kind in kinds]

    def outlook(
        self, prefill: Sequence[float], decode: Sequence[float], mixed: Sequence[float] | None = None
    ) -> Outlook:
        """Predicts a split.

        Args:
            prefill: workers for prompts, of each kind.
            decode: workers for tokens, of each kind.
            mixed: workers for both, of each kind; None for none.
        """
        mixed = mixed or [0.0] * len(self._kinds)
        has_prefill, has_decode = any((*prefill, *mixed)), any((*decode, *mixed))
        if not has_prefill or not has_decode:
            return Outlook(0.0, 0.0 if has_prefill else NEVER_S, 0.0 if has_decode else NEVER_S)
        parts = zip(self._kinds, decode, mixed, self._in_time, strict=True)
        sequences = Sequences(self._load, [part for part in parts if part[1] + part[2]])
        effective = self._effective(prefill, mixed, sequences)
        alone_s = sum((p + m) * s for p, m, s in zip(prefill, mixed, self._alone_s, strict=True)) / sum(effective)
        prompts = Prompts(
            self._load,
            waiting_rate=_rate(effective, self._waiting_s),
            new_rate=_rate(effective, self._new_s),
            alone_s=alone_s,
            num_workers=sum(effective),
            horizon_s=self._horizon_s,
        )
        return self._run(prompts, sequences, prefill, mixed)

    def _effective(self, prefill: Sequence[float], mixed: Sequence[float], sequences: "Sequences") -> list[float]:
        """Prefill workers of each kind that would compute prompts as fast."""
        if not any(mixed):
            return list(prefill)
        shares = (
            sequences.prompt_share(kind, in_time) for kind, in_time in zip(self._kinds, self._in_time, strict=True)
        )
        return [p + m * share for p, m, share in zip(prefill, mixed, shares, strict=True)]

    def _run(
        self, prompts: "Prompts", sequences: "Sequences", prefill: Sequence[float], mixed: Sequence[float]
    ) -> Outlook:
        arrivals, limits = self._load.forecast.arrivals_per_s, self._load.limits
        in_time, ttft_sum = prompts.waiting_in_time(), 0.0
        tokens = tokens_in_time = tpot_sum = 0.0
        for step_s in self._steps_s:
            effective = self._effective(prefill, mixed, sequences)
            prompts.go_on_at(_rate(effective, self._waiting_s), _rate(effective, self._new_s))
            sequences.prompt_busy = prompts.busy(step_s)
            ttft_s = prompts.ttft_s()
            in_time += arrivals * step_s * share_in_time(ttft_s / limits.ttft_s, TTFT_SHARPNESS)
            ttft_sum += ttft_s * step_s
            tokens_per_s, tpot_s = sequences.speed()
            generated = tokens_per_s * step_s
            tokens += generated
            tokens_in_time += generated * share_in_time(tpot_s / limits.tpot_s, TPOT_SHARPNESS)
            tpot_sum += generated * tpot_s
            sequences.advance(step_s, tpot_s, *prompts.advance(step_s))
        share = tokens_in_time / tokens if tokens else 1.0
        return Outlook(
            requests=share * (in_time + self._load.running / 2),
            ttft_s=min(ttft_sum / self._horizon_s, NEVER_S),
            tpot_s=min(tpot_sum / tokens if tokens else tpot_s, NEVER_S),
        )


class Prompts:
    """The first tank: those that wait now are computed first, then those that come.

    Args:
        load: what waits and what comes.
        waiting_rate: prompts of those that wait now that the workers compute per second.
        new_rate: prompts of those to come that they compute per second.
        alone_s: seconds of a prompt to come that waits for nobody.
        num_workers: that compute.
        horizon_s: see `ControllerSettings`.
    """

    def __init__(
        self,
        load: Load,
        *,
        waiting_rate: float,
        new_rate: float,
        alone_s: float,
        num_workers: float,
        horizon_s: float,
    ) -> None:
        self._load = load
        self._waiting_rate = waiting_rate
        self._new_rate = new_rate
        self._waiting = load.backlog
        self._new = 0.0
        self._alone_s = alone_s
        self._chance_s = self._mean_wait_s(max(num_workers, 1.0), horizon_s)

    def go_on_at(self, waiting_rate: float, new_rate: float) -> None:
        """The workers are as fast as this from now on."""
        self._waiting_rate, self._new_rate = waiting_rate, new_rate

    def busy(self, step_s: float) -> float:
        """The part of the time to come that the workers compute."""
        arriving = self._load.forecast.arrivals_per_s * step_s
        return min(1.0, (self._waiting / self._waiting_rate + (self._new + arriving) / self._new_rate) / step_s)

    def ttft_s(self) -> float:
        """Of a prompt that comes now."""
        queue_s = self._waiting / self._waiting_rate + self._new / self._new_rate
        return math.hypot(queue_s, self._chance_s) + self._alone_s

    def waiting_in_time(self) -> float:
        """Of the prompts that wait now, those that get their first token in time: the oldest comes first."""
        load = self._load
        parts = [(index + 0.5) / BACKLOG_PARTS for index in range(BACKLOG_PARTS)]
        ttfts_s = [load.oldest_s * (1 - part) + load.backlog * part / self._waiting_rate for part in parts]
        shares = [share_in_time(ttft_s / load.limits.ttft_s, TTFT_SHARPNESS) for ttft_s in ttfts_s]
        return load.backlog * sum(shares) / BACKLOG_PARTS

    def advance(self, step_s: float) -> tuple[float, float]:
        """Lets time pass; returns the prompts that were computed per second, and their mean tokens."""
        done_before = min(self._waiting, self._waiting_rate * step_s)
        self._waiting -= done_before
        self._new += self._load.forecast.arrivals_per_s * step_s
        done_new = min(self._new, self._new_rate * (step_s - done_before / self._waiting_rate))
        self._new -= done_new
        done = done_before + done_new
        tokens = done_before * self._load.backlog_prompt_tokens + done_new * self._load.forecast.prompt_tokens
        return done / step_s, tokens / done if done else 0.0

    def _mean_wait_s(self, num_workers: float, horizon_s: float) -> float:
        """Mean wait that comes of prompts coming by chance, in any queue of several workers (Sakasegawa, 1977).

        Near saturation it would take longer than the horizon to build up: there, diffusion bounds it.
        """
        forecast = self._load.forecast
        prompt_s = num_workers / self._new_rate
        spread = forecast.prompt_tokens_squared / max(forecast.prompt_tokens, 1.0) ** 2
        used = min(forecast.arrivals_per_s / self._new_rate, 1.0)
        spare = max(1 - used, math.sqrt(prompt_s / (num_workers * horizon_s)))
        busy: float = used ** (math.sqrt(2 * (num_workers + 1)) - 1)
        return prompt_s * spread / 2 * busy / (num_workers * spare)


class Sequences:
    """The second tank. A sequence counts with half of its answer.

    Args:
        load: what runs now.
        parts: kinds of the workers that generate, how many of each do nothing else, how many compute prompts as well,
            and the batch that is in time: sequences are shared among kinds by that.

    Attributes:
        prompt_busy: the part of the time that those which compute prompts as well do so.
    """

    def __init__(self, load: Load, parts: Sequence[tuple[Kind, float, float, float]]) -> None:
        self.prompt_busy = 0.0
        self._forecast = load.forecast
        self._longest_s = STEP_SHARE * load.limits.tpot_s
        self._parts = parts
        self._room = sum((decode + mixed) * batch for _, decode, mixed, batch in parts)
        self._running = load.running
        self._context = load.running_context

    def speed(self) -> tuple[float, float]:
        """Tokens per second of all, and seconds per token of each; who waits for a place counts as slow."""
        context = self._mean_context
        tokens_per_s = 0.0
        for kind, decode, mixed, in_time in self._parts:
            batch = self._batch(kind, in_time)
            step_s = kind.decode_step_s(batch, context)
            mixed_step_s = step_s + self.prompt_busy * max(0.0, self._longest_s - step_s)
            tokens_per_s += batch * (decode / step_s + mixed / mixed_step_s)
        if not tokens_per_s:
            return 0.0, min(kind.decode_step_s(1, context) for kind, *_ in self._parts)
        return tokens_per_s, self._running / tokens_per_s

    def prompt_share(self, kind: Kind, in_time: float) -> float:
        """How fast a mixed worker computes prompts beside its sequences, as a share of a prefill worker's speed."""
        batch = self._batch(kind, in_time)
        taken_s = min(batch, 1.0) * kind.decode_step_s(batch, self._mean_context)
        return max(LEAST_SHARE, 1 - taken_s / self._longest_s)

    @property
    def _mean_context(self) -> float:
        return self._context / self._running if self._running > 0 else self._forecast.context_tokens

    def _batch(self, kind: Kind, in_time: float) -> float:
        """Sequences of each worker of a kind."""
        return min(self._running / self._room * in_time, kind.places(self._mean_context))

    def advance(self, step_s: float, tpot_s: float, flow: float, prompt_tokens: float) -> None:
        """Lets time pass while so many sequences per second come, of so many prompt tokens."""
        stay_s = tpot_s * self._forecast.answer_tokens
        kept = math.exp(-step_s / stay_s)
        context = prompt_tokens + self._forecast.answer_tokens / 2
        self._running = flow * stay_s + (self._running - flow * stay_s) * kept
        self._context = flow * stay_s * context + (self._context - flow * stay_s * context) * kept


def _rate(workers: Sequence[float], prompt_s: Sequence[float]) -> float:
    """Prompts per second of workers of each kind."""
    return sum(number / s for number, s in zip(workers, prompt_s, strict=True))


def share_in_time(ratio: float, sharpness: int) -> float:
    """The part of requests inside a limit when their mean is `ratio` of it: half at 1."""
    return 1 / (1 + min(ratio, 1e3) ** sharpness)
