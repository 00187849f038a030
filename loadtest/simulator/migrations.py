"""Running sequences on their way to other workers: copied while they run, then still for a pause."""

from collections.abc import Callable
from functools import partial

from loadtest.simulator.agenda import Agenda
from loadtest.simulator.books import Books
from loadtest.simulator.job import Job
from loadtest.simulator.spec import MoveCosts
from loadtest.simulator.transfers import Transfers
from loadtest.simulator.worker import SimWorker


class Migrations:
    """Those of one fleet.

    Args:
        moves: what they take.
        transfers: carry their KV.
        books: on workers.
        agenda: the clock.
        on_landed: hears of a sequence that may go on at its target.
    """

    def __init__(
        self,
        moves: MoveCosts,
        transfers: Transfers,
        books: Books,
        agenda: Agenda,
        on_landed: Callable[[Job, SimWorker], None],
    ) -> None:
        self._moves = moves
        self._transfers = transfers
        self._books = books
        self._agenda = agenda
        self._on_landed = on_landed
        self._targets: dict[Job, SimWorker] = {}
        self._standing: set[Job] = set()  # those that have left their source

    def target_of(self, job: Job) -> SimWorker | None:
        """Where a sequence is moving to; None when it is not."""
        return self._targets.get(job)

    def is_standing(self, job: Job) -> bool:
        """Whether a sequence runs nowhere until it has landed."""
        return job in self._standing

    def begin(self, job: Job, target: SimWorker) -> None:
        """Asks a worker that has room to take a running sequence."""
        self._targets[job] = target
        self._books.expect(job, target)
        target.open(job)

    def copy(self, job: Job) -> None:
        """The target has room: the KV is copied while the sequence runs, then it is stopped."""
        source, target = job.decode, self._targets[job]
        assert source is not None, f"request {job.number} migrates from nowhere"
        copy_s = self._transfers.copy_s(source, target, job.context_tokens)
        self._agenda.after(copy_s, partial(self._stop, job, source, target))

    def _stop(self, job: Job, source: SimWorker, target: SimWorker) -> None:
        if self._targets.get(job) is target and job in source.running:
            source.stop(job)

    def land(self, job: Job) -> None:
        """It stands still: the tail is copied, then it goes on at its target."""
        self._standing.add(job)
        attempt = job.attempt

        def landed() -> None:
            if job.attempt == attempt:
                self._arrive(job)

        self._agenda.after(self._moves.pause_s, landed)

    def _arrive(self, job: Job) -> None:
        source, target = job.decode, self._targets.pop(job)
        assert source is not None, f"request {job.number} came from nowhere"
        self._standing.discard(job)
        self._books.leave(job, source)
        job.decode = target
        job.num_migrations += 1
        self._on_landed(job, target)

    def end(self, job: Job) -> None:
        """A sequence moves no more: it has ended, or one of the two workers is lost."""
        self._standing.discard(job)
        if (target := self._targets.pop(job, None)) is not None:
            self._books.leave(job, target)
            target.close(job)
