"""What the role controller hears of the load, summed from one look to the next."""

from collections import Counter

from loadtest.simulator.job import Job
from router.roles.snapshot import Demand, Limits


class DemandMeter:
    """Counts what happens to requests.

    Args:
        limits: of every request.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._since_s = 0.0
        self._sums: Counter[str] = Counter()

    def arrived(self, num_tokens: int) -> None:
        """A request came, with so many prompt tokens that no cache has."""
        self._sums["num_arrived"] += 1
        self._sums["prompt_tokens"] += num_tokens
        self._sums["prompt_tokens_squared"] += num_tokens**2

    def first_token(self, job: Job) -> None:
        """A request has its first token."""
        ttft_s = job.ttft_s
        assert ttft_s is not None, "the first token has come"
        self._sums["num_first_tokens"] += 1
        self._sums["num_ttft_met"] += ttft_s <= self._limits.ttft_s

    def finished(self, job: Job) -> None:
        """A request has its last token."""
        tpot_s = job.tpot_s
        assert tpot_s is not None, "the last token has come"
        self._sums["num_finished"] += 1
        self._sums["answer_tokens"] += job.arrival.answer_tokens
        self._sums["num_tpot_met"] += tpot_s <= self._limits.tpot_s

    def take(self, now_s: float) -> Demand:
        """The sums since this was called last."""
        demand = Demand(duration_s=now_s - self._since_s, **self._sums)
        self._since_s, self._sums = now_s, Counter()
        return demand
