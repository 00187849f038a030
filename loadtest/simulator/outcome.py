"""What came of a simulated load."""

from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.simulator.job import Job
from loadtest.simulator.worker import SimWorker
from router.roles.decision import Flip
from router.roles.snapshot import Limits


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run.

    Attributes:
        limits: of every request.
        jobs: all requests.
        flips: changes of roles: when, and which.
        workers: as they are at the end.
    """

    limits: Limits
    jobs: Sequence[Job]
    flips: Sequence[tuple[float, Flip]]
    workers: Sequence[SimWorker]

    @property
    def attainment(self) -> float:
        """Share of all requests that ended inside both limits; 0 without any. What never ended is outside."""
        return self.num_inside / len(self.jobs) if self.jobs else 0.0

    @property
    def num_inside(self) -> int:
        """Requests that ended inside both limits."""
        return sum(job.is_inside(self.limits.ttft_s, self.limits.tpot_s) for job in self.jobs)

    @property
    def num_ttft_met(self) -> int:
        """Requests whose first token came in time."""
        return sum((ttft_s := job.ttft_s) is not None and ttft_s <= self.limits.ttft_s for job in self.jobs)

    @property
    def num_tpot_met(self) -> int:
        """Requests that ended with a mean time per token inside the limit."""
        return sum((tpot_s := job.tpot_s) is not None and tpot_s <= self.limits.tpot_s for job in self.jobs)

    @property
    def num_migrations(self) -> int:
        """Moves of running sequences."""
        return sum(job.num_migrations for job in self.jobs)
