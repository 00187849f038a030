"""What came of a simulated load."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.ids import WorkerId
from loadtest.simulator.job import Job
from loadtest.simulator.tally import Tally
from loadtest.simulator.worker import SimWorker
from router.roles.decision import Flip
from router.roles.snapshot import Limits


@dataclass(frozen=True, slots=True)
class Loss:
    """A worker that died.

    Attributes:
        at_s: when.
        worker: its process.
        num_requests: that had to be placed again.
    """

    at_s: float
    worker: WorkerId
    num_requests: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run.

    Attributes:
        limits: of every request.
        tally: of all requests.
        jobs: all requests in order of arrival; none where they were not to be kept.
        flips: changes of roles: when, and which.
        losses: workers that died.
        workers: as they are at the end.
        load_s: time of the last arrival.
        end_s: when the last request had ended, or the run was over.
        busy_s: time that steps took, summed over all workers.
    """

    limits: Limits
    tally: Tally
    jobs: Sequence[Job]
    flips: Sequence[tuple[float, Flip]]
    losses: Sequence[Loss]
    workers: Sequence[SimWorker]
    load_s: float
    end_s: float
    busy_s: float

    @property
    def attainment(self) -> float:
        """Share of all requests that ended inside both limits; 0 without any. What never ended is outside."""
        return self.num_inside / self.tally.num_requests if self.tally.num_requests else 0.0

    @property
    def num_inside(self) -> int:
        """Requests that ended inside both limits."""
        return self.tally.num_inside

    @property
    def num_ttft_met(self) -> int:
        """Requests whose first token came in time."""
        return self.tally.num_ttft_met

    @property
    def num_tpot_met(self) -> int:
        """Requests that ended with a mean time per token inside the limit."""
        return self.tally.num_tpot_met

    @property
    def num_migrations(self) -> int:
        """Moves of running sequences."""
        return self.tally.num_migrations
