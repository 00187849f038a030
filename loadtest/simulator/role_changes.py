"""Workers of a simulated fleet that change their roles: orders on their way, and what has no place in a new role.

Where the policy moves work, queued prompts are placed again and running sequences sent to workers with room. What
finds no room stays, and is tried again every second.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

from core.request import Role
from loadtest.simulator.agenda import Agenda
from loadtest.simulator.crew import Crew
from loadtest.simulator.job import Job
from loadtest.simulator.worker import SimWorker
from router.roles.decision import Flip

RETRY_S = 1.0  # between two attempts to find room for sequences that are to leave


class WorkMover(Protocol):
    """Finds another place for what a worker has."""

    def place_again(self, job: Job) -> None:
        """A prompt that its worker has not started is placed anew."""
        ...

    def migrate(self, job: Job) -> bool:
        """Starts to move a running sequence to a worker that has room; False when there is none."""
        ...

    def is_migrating(self, job: Job) -> bool:
        """Whether a sequence is on its way already."""
        ...


class RoleChanges:
    """Those of one fleet.

    Args:
        crew: its workers.
        agenda: the clock.
        order_s: from a decision until the worker has it.
        mover: moves what has no place in a new role; None where a worker finishes what it has, in whatever role.
        on_changed: hears that a worker has another role.

    Attributes:
        flips: that happened: when, and which.
        ordered: workers that have been told to take another role, and have not taken it.
    """

    def __init__(
        self, crew: Crew, agenda: Agenda, order_s: float, mover: WorkMover | None, on_changed: Callable[[], None]
    ) -> None:
        self.flips: list[tuple[float, Flip]] = []
        self.ordered: set[SimWorker] = set()
        self._crew = crew
        self._agenda = agenda
        self._order_s = order_s
        self._mover = mover
        self._on_changed = on_changed
        self._crowded: set[SimWorker] = set()  # of which something is tried again

    def order(self, flip: Flip) -> None:
        """Tells a worker; one that is dead is told nothing."""
        if (worker := self._crew.named(flip.worker)) is not None:
            self.ordered.add(worker)
            self._agenda.after(self._order_s, partial(self.change, flip))

    def change(self, flip: Flip) -> None:
        """A worker takes a role, now; an order to one that is dead leads to nothing."""
        worker = self._crew.named(flip.worker)
        if worker is None:
            return
        self.ordered.discard(worker)
        if worker.role is flip.role:
            return
        self._crew.changed[worker] = None
        worker.role, worker.since_s = flip.role, self._agenda.now_s
        self.flips.append((self._agenda.now_s, flip))
        self._crew.regroup()
        self._clear(worker)
        self._on_changed()

    def joined(self, job: Job, worker: SimWorker) -> None:
        """A sequence runs; it is sent on at once when its worker has meanwhile become another half's."""
        if self._mover is None or worker.role.serves(Role.DECODE) or job not in worker.running:
            return
        if not self._mover.migrate(job):
            self.clear_later(worker)

    def clear_later(self, worker: SimWorker) -> None:
        """Has what has no place at a worker be moved in a while, if it is still there."""
        if worker not in self._crowded:
            self._crowded.add(worker)
            self._agenda.after(RETRY_S, partial(self._clear_again, worker))

    def _clear_again(self, worker: SimWorker) -> None:
        self._crowded.discard(worker)
        if self._crew.named(worker.id.name) is worker:
            self._clear(worker)

    def _clear(self, worker: SimWorker) -> None:
        """Takes from a worker what has no place in its role."""
        mover = self._mover
        if mover is None:
            return
        if not worker.role.serves(Role.PREFILL):
            for job in worker.take_queued():
                mover.place_again(job)
        if not worker.role.serves(Role.DECODE):
            moved = [mover.migrate(job) for job in worker.running if not mover.is_migrating(job)]
            if not all(moved):
                self.clear_later(worker)
