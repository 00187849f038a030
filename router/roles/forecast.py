"""What is about to be asked for, from what was asked for until now. No clocks: time is the snapshots'.

Answers tell how long they are only when they end. So what runs counts, too: while long ones run, tokens are generated
and nothing ends, which tells at once.
"""

import math
from dataclasses import dataclass

from router.roles.settings import ControllerSettings
from router.roles.snapshot import FleetSnapshot, WorkerView
from router.roles.window import AdaptiveWindow, Events

PRIOR_ANSWER_TOKENS = 256.0
"""Tokens of an answer while none has ended; weighs as much as one that has."""
LEAST_S = 2.0
"""Rates are over at least this time: one request in the first instant is no flood."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the next seconds bring.

    Attributes:
        arrivals_per_s: requests.
        prompt_tokens: mean of a request, those in a cache not counted.
        prompt_tokens_squared: mean of the square.
        answer_tokens: mean of a request.
        context_tokens: mean length of a sequence halfway through its answer, without what was cached.
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


class Forecaster:
    """Turns snapshots, in order, into forecasts."""

    def __init__(self, settings: ControllerSettings) -> None:
        self._prompts = AdaptiveWindow(settings.memory_s, settings.significance)
        self._answers = AdaptiveWindow(settings.memory_s, settings.significance)
        self._recent_s = settings.recent_s
        self._generated = 0.0
        self._ended = 0.0

    def observe(self, snapshot: FleetSnapshot) -> Forecast:
        """Takes a snapshot in; called once for each."""
        demand = snapshot.demand
        came = Events(demand.duration_s, demand.num_arrived, demand.prompt_tokens, demand.prompt_tokens_squared)
        self._prompts.add(came)
        # How much answers differ is not known; those of one look taken as one, it shows a little.
        squares = demand.answer_tokens**2 / demand.num_finished if demand.num_finished else 0.0
        self._answers.add(Events(demand.duration_s, demand.num_finished, demand.answer_tokens, squares))
        self._remember(snapshot)
        return self._forecast(snapshot)

    def _remember(self, snapshot: FleetSnapshot) -> None:
        """What was generated and what ended in the last seconds, fading away."""
        duration_s = snapshot.demand.duration_s
        generated = duration_s * generating_share(snapshot) * sum(map(tokens_per_s, snapshot.workers))
        fading = math.exp(-duration_s / self._recent_s)
        self._generated = self._generated * fading + generated
        self._ended = self._ended * fading + snapshot.demand.num_finished

    def _forecast(self, snapshot: FleetSnapshot) -> Forecast:
        came = self._prompts.total
        answer_tokens = self._answer_tokens(snapshot)
        return Forecast(
            # The first seconds say little: what came in less than a few is taken to be all of it.
            arrivals_per_s=came.count / max(came.duration_s, LEAST_S),
            prompt_tokens=came.mean,
            prompt_tokens_squared=came.mean**2 + came.variance,
            answer_tokens=answer_tokens,
            context_tokens=came.mean + answer_tokens / 2,
        )

    def _answer_tokens(self, snapshot: FleetSnapshot) -> float:
        """Those that run count like those that ended: expected to be like them, and known to have come so far."""
        ended = self._answers.total
        mean = (ended.amount + PRIOR_ANSWER_TOKENS) / (ended.count + 1)
        running = generating_share(snapshot) * sum(worker.running_sequences for worker in snapshot.workers)
        return (self._generated + mean * running + mean) / (self._ended + running + 1)


def num_uncomputed(snapshot: FleetSnapshot) -> int:
    """Prompts that wait or are being computed; a worker computes about one at a time."""
    workers = snapshot.workers
    return snapshot.waiting_prompts + sum(w.queued_prompts + (w.pending_prompt_tokens > 0) for w in workers)


def generating_share(snapshot: FleetSnapshot) -> float:
    """Of the sequences that workers have or are promised, the part whose prompts are computed."""
    promised = sum(worker.running_sequences for worker in snapshot.workers)
    uncomputed = num_uncomputed(snapshot) - snapshot.waiting_prompts
    return max(0, promised - uncomputed) / promised if promised else 0.0


def tokens_per_s(worker: WorkerView) -> float:
    """Tokens that a worker generates when all its sequences do, as its cost model has it."""
    step_s = worker.cost.decode_s(worker.running_sequences, worker.context_tokens)
    return min(worker.running_sequences, worker.max_num_seqs) / step_s if step_s else 0.0
