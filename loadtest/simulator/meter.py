"""What the role controller hears of the load, summed from one look to the next."""

from dataclasses import replace

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
        self._demand = Demand()

    def arrived(self, num_tokens: int) -> None:
        """A request came, with so many prompt tokens that no cache has."""
        self._add(num_arrived=1, prompt_tokens=num_tokens, prompt_tokens_squared=num_tokens**2)

    def first_token(self, job: Job) -> None:
        """A request has its first token."""
        ttft_s = job.ttft_s
        assert ttft_s is not None, "the first token has come"
        self._add(num_first_tokens=1, num_ttft_met=int(ttft_s <= self._limits.ttft_s))

    def finished(self, job: Job) -> None:
        """A request has its last token."""
        tpot_s = job.tpot_s
        assert tpot_s is not None, "the last token has come"
        is_met = tpot_s <= self._limits.tpot_s
        self._add(num_finished=1, answer_tokens=job.arrival.answer_tokens, num_tpot_met=int(is_met))

    def take(self, now_s: float) -> Demand:
        """The sums since this was called last."""
        demand = replace(self._demand, duration_s=now_s - self._since_s)
        self._since_s, self._demand = now_s, Demand()
        return demand

    def _add(self, **amounts: int) -> None:
        sums = {name: getattr(self._demand, name) + amount for name, amount in amounts.items()}
        self._demand = replace(self._demand, **sums)
