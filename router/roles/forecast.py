"""What is about to be asked for, from what was asked for until now. No clocks: time is the snapshots'.

Events are counted in several averages that forget exponentially, at different speeds. The slowest is believed until a
faster one differs from it by more than chance explains; then it takes over what that one says. So a forecast is
steady under noise, and follows a burst within seconds.

Answers tell how long they are only when they end. What is counted is therefore how often an answer ends per token
generated: while long ones run, tokens are generated and nothing ends, which tells at once.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

from router.roles.settings import ControllerSettings
from router.roles.snapshot import FleetSnapshot, WorkerView

PRIOR_ANSWER_TOKENS = 256.0
"""Tokens of an answer while none has ended; weighs as much as one that has."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the next seconds bring.

    Attributes:
        arrivals_per_s: requests.
        prompt_tokens: mean of a request, those in a cache not counted.
        prompt_tokens_squared: mean of the square.
        answer_tokens: mean of a request.
        context_tokens: mean length of a sequence halfway through its answer, cached tokens included.
    """

    arrivals_per_s: float = 0.0
    prompt_tokens: float = 0.0
    prompt_tokens_squared: float = 0.0
    answer_tokens: float = PRIOR_ANSWER_TOKENS
    context_tokens: float = 0.0

    @property
    def prompt_tokens_per_s(self) -> float:
        """That must be computed."""
        return self.arrivals_per_s * self.prompt_tokens

    @property
    def answer_tokens_per_s(self) -> float:
        """That will be generated once the requests run."""
        return self.arrivals_per_s * self.answer_tokens


@dataclass(slots=True)
class Sums:
    """Events in a time that fades away, and how much of it there was.

    Attributes:
        exposure: in what the events happen: seconds, or tokens generated.
        count: events.
        amount: sum of what each brought.
        squares: sum of its squares.
    """

    exposure: float = 0.0
    count: float = 0.0
    amount: float = 0.0
    squares: float = 0.0

    def fade(self, factor: float) -> None:
        """Makes all that was counted until now weigh less."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) * factor)

    def add(self, other: "Sums") -> None:
        """Counts more."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    def take_over(self, other: "Sums") -> None:
        """Believes another."""
        for field in fields(self):
            setattr(self, field.name, getattr(other, field.name))

    def differs(self, steady: "Sums", significance: float) -> bool:
        """Whether more or less happened than a steadier average lets expect, by more than chance explains.

        Events are taken to come by chance (Poisson), with sizes by chance. Fading halves the variance of a sum: it
        is of the squares of the weights. One event more keeps a single one from being a surprise.
        """
        if not steady.exposure:
            return False
        share = self.exposure / steady.exposure
        surprise = abs(self.count - steady.count * share)
        bound = significance * math.sqrt(steady.count * share / 2 + 1)
        size = steady.squares / steady.count if steady.count else 0.0
        surprise_amount = abs(self.amount - steady.amount * share)
        bound_amount = significance * math.sqrt(steady.squares * share / 2 + size)
        return surprise > bound or (size > 0 and surprise_amount > bound_amount)


class Averages:
    """One kind of event, remembered for several lengths of time."""

    def __init__(self, settings: ControllerSettings) -> None:
        self._memories_s = settings.memories_s
        self._significance = settings.significance
        self._sums = [Sums() for _ in settings.memories_s]

    def observe(self, duration_s: float, happened: Sums) -> None:
        """Counts what happened in a time; the slower averages follow a faster one that clearly differs."""
        for memory_s, sums in zip(self._memories_s, self._sums, strict=True):
            sums.fade(math.exp(-duration_s / memory_s))
            sums.add(happened)
        for faster, slower in pairwise(self._sums):
            if faster.differs(slower, self._significance):
                slower.take_over(faster)

    @property
    def fastest_s(self) -> float:
        """Seconds that the fastest remembers."""
        return self._memories_s[0]

    @property
    def steady(self) -> Sums:
        """The slowest, which is as fast as it must be."""
        return self._sums[-1]


class Forecaster:
    """Turns snapshots, in order, into forecasts."""

    def __init__(self, settings: ControllerSettings) -> None:
        self._arrivals = Averages(settings)
        self._answers = Averages(settings)

    def observe(self, snapshot: FleetSnapshot) -> Forecast:
        """Takes a snapshot in; called once for each."""
        demand = snapshot.demand
        duration_s = demand.duration_s
        came = Sums(duration_s, demand.num_arrived, demand.prompt_tokens, demand.prompt_tokens_squared)
        self._arrivals.observe(duration_s, came)
        generated = duration_s * generating_share(snapshot) * sum(map(tokens_per_s, snapshot.workers))
        self._answers.observe(duration_s, Sums(generated, demand.num_finished))
        return self._forecast(snapshot)

    def _forecast(self, snapshot: FleetSnapshot) -> Forecast:
        came, ended = self._arrivals.steady, self._answers.steady
        if not came.count:
            return Forecast(answer_tokens=_answer_tokens(ended))
        answer_tokens = _answer_tokens(ended)
        prompt_tokens = came.amount / came.count
        return Forecast(
            # The first seconds say little: what came in less than the fastest memory is taken to be all of it.
            arrivals_per_s=came.count / max(came.exposure, self._arrivals.fastest_s),
            prompt_tokens=prompt_tokens,
            prompt_tokens_squared=max(came.squares / came.count, prompt_tokens**2),
            answer_tokens=answer_tokens,
            context_tokens=max(prompt_tokens + answer_tokens / 2, _mean_context(snapshot.workers)),
        )


def generating_share(snapshot: FleetSnapshot) -> float:
    """Of the sequences that workers have or are promised, the part whose prompts are not waiting any more."""
    promised = sum(worker.running_sequences for worker in snapshot.workers)
    waiting = sum(worker.queued_prompts for worker in snapshot.workers)
    return max(0, promised - waiting) / promised if promised else 0.0


def tokens_per_s(worker: WorkerView) -> float:
    """Tokens that a worker generates when all its sequences do, as its cost model has it."""
    step_s = worker.cost.decode_s(worker.running_sequences, worker.context_tokens)
    return min(worker.running_sequences, worker.max_num_seqs) / step_s if step_s else 0.0


def _answer_tokens(ended: Sums) -> float:
    return (ended.exposure + PRIOR_ANSWER_TOKENS) / (ended.count + 1)


def _mean_context(workers: Sequence[WorkerView]) -> float:
    running = sum(worker.running_sequences for worker in workers)
    return sum(worker.context_tokens for worker in workers) / running if running else 0.0
