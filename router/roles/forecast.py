"""What is about to be asked for, from what was asked for until now. No clocks: time is the snapshots'.

How many requests come and how long their prompts are is known at once, how long answers are only when they end: of
those a forecast is late by the length of an answer. That is why the controller looks ahead by seconds only.
"""

from dataclasses import dataclass

from router.roles.settings import ControllerSettings
from router.roles.snapshot import Demand, FleetSnapshot, WorkerView
from router.roles.window import AdaptiveWindow, Events

PRIOR_ANSWER_TOKENS = 256.0
"""Tokens of an answer while none has ended."""
LEAST_S = 2.0
"""Rates are over at least this time: one request in the first instant is no flood."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the next seconds bring.

    Attributes:
        arrivals_per_s: requests.
        prompt_tokens: mean of a request, those in a cache not counted.
        prompt_tokens_squared: mean of the square.
        answer_tokens: mean of a request, at least 1.
    """

    arrivals_per_s: float = 0.0
    prompt_tokens: float = 0.0
    prompt_tokens_squared: float = 0.0
    answer_tokens: float = PRIOR_ANSWER_TOKENS

    @property
    def context_tokens(self) -> float:
        """Mean length of a sequence halfway through its answer, without what was cached."""
        return self.prompt_tokens + self.answer_tokens / 2

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

    def observe(self, demand: Demand) -> Forecast:
        """Takes in what happened since the last call, and says what comes."""
        duration_s = demand.duration_s
        self._prompts.add(Events(duration_s, demand.num_arrived, demand.prompt_tokens, demand.prompt_tokens_squared))
        # How much single answers differ is not known, but how much the means of looks do.
        mean = demand.answer_tokens / max(demand.num_finished, 1)
        self._answers.add(Events(duration_s, min(demand.num_finished, 1), mean, mean**2))
        came, ended = self._prompts.total, self._answers.total
        return Forecast(
            # The first seconds say little: what came in less than a few is taken to be all of it.
            arrivals_per_s=came.count / max(came.duration_s, LEAST_S),
            prompt_tokens=came.mean,
            prompt_tokens_squared=came.mean**2 + came.variance,
            # What ended without a token has failed.
            answer_tokens=max(ended.mean, 1.0) if ended.count else PRIOR_ANSWER_TOKENS,
        )


def num_prompts(worker: WorkerView) -> int:
    """That wait at a worker or are being computed there, about one at a time."""
    return worker.queued_prompts + (worker.pending_prompt_tokens > 0)


def generating_share(snapshot: FleetSnapshot) -> float:
    """Of the sequences that workers have or are promised, the part whose prompts are computed."""
    promised = sum(worker.running_sequences for worker in snapshot.workers)
    uncomputed = sum(map(num_prompts, snapshot.workers))
    return max(0, promised - uncomputed) / promised if promised else 0.0
