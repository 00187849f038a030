"""What came of requests, in sums: kept while they end, so that a day of them needs no room."""

from collections import Counter

from loadtest.simulator.job import Job
from loadtest.simulator.spread import Spread
from router.roles.snapshot import Limits


class Tally:
    """Requests of one run. What never ended is outside the limits, and so is what was refused.

    Args:
        limits: of every request.

    Attributes:
        num_requests: that came.
        refused: of these, those that admission refused, by its reasons.
        num_finished: that ended with their last token.
        num_inside: of these, inside both limits.
        num_ttft_met: whose first token came in time.
        num_tpot_met: that ended with a mean time per token inside the limit.
        num_migrations: moves of running sequences.
        num_placed_again: placements that were not a request's first.
        prompt_tokens: of requests that ended.
        answer_tokens: likewise.
        ttft: of requests that got a first token.
        tpot: of requests that ended, and have more than one token.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.num_requests = 0
        self.refused: Counter[str] = Counter()
        self.num_finished = 0
        self.num_inside = 0
        self.num_ttft_met = 0
        self.num_tpot_met = 0
        self.num_migrations = 0
        self.num_placed_again = 0
        self.prompt_tokens = 0
        self.answer_tokens = 0
        self.ttft = Spread()
        self.tpot = Spread()

    def refuse(self, reason: str) -> None:
        """A request was refused; it had been counted as one that came."""
        self.refused[reason] += 1

    def fold(self, job: Job) -> None:
        """Nothing more happens to a request: it has ended, or the run has."""
        self.num_migrations += job.num_migrations
        self.num_placed_again += max(0, job.num_places - 1)
        if (ttft_s := job.ttft_s) is None:
            return
        self.ttft.add(ttft_s)
        is_early = ttft_s <= self._limits.ttft_s
        self.num_ttft_met += is_early
        if (tpot_s := job.tpot_s) is None:
            return
        self.num_finished += 1
        self.prompt_tokens += job.arrival.prompt_tokens
        self.answer_tokens += job.arrival.answer_tokens
        if job.arrival.answer_tokens > 1:
            self.tpot.add(tpot_s)
        is_fast = tpot_s <= self._limits.tpot_s
        self.num_tpot_met += is_fast
        self.num_inside += is_early and is_fast
