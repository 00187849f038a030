"""Requests as admission counts them: the router's own, told what its dispatcher tells it. All are one tenant's."""

from loadtest.simulator.job import Job
from router.admission.admission import Admission

TENANT = ""
TURN = 0, TENANT


class FrontDoor:
    """Accepted requests of one run that have not ended.

    Args:
        admission: that decides; None where all are accepted.
    """

    def __init__(self, admission: Admission | None) -> None:
        self._admission = admission
        self.open: dict[Job, None] = {}  # in order of arrival

    def enter(self, job: Job) -> None:
        """A request is accepted; one that has been before, and came back, changes nothing."""
        if job in self.open:
            return
        self.open[job] = None
        if self._admission is not None:
            self._admission.waiting.enter(str(job.number), TENANT)

    def generated(self, job: Job) -> None:
        """A worker generates it, so it waits no more."""
        if self._admission is not None:
            self._admission.waiting.leave(str(job.number))

    def leave(self, job: Job) -> None:
        """It has ended, with its last token."""
        del self.open[job]
        if self._admission is not None:
            self._admission.waiting.leave(str(job.number))
            self._admission.answers.add(job.arrival.answer_tokens)
