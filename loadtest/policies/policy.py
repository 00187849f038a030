"""The seam between the simulated fleet and whoever decides where requests go, and who changes its role."""

from collections.abc import Sequence
from typing import Protocol

from core.errors import OverloadedError
from loadtest.simulator.job import Job
from loadtest.simulator.view import FleetView
from loadtest.simulator.worker import SimWorker
from router.roles.decision import Flip


class Policy(Protocol):
    """Decides. One object decides for one run.

    Attributes:
        interval_s: between two looks.
        moves_work: whether a flip gives queued prompts back and moves running sequences elsewhere; else a worker
            finishes what it has, in whatever role.
    """

    interval_s: float
    moves_work: bool

    def place(self, job: Job, fleet: FleetView) -> tuple[SimWorker, SimWorker | None] | OverloadedError | None:
        """Who computes a prompt, and who generates after it, unless `place_decode` is to say so; None: nobody can.

        A new request may be refused instead; the error says why.
        """
        ...

    def place_decode(self, job: Job, fleet: FleetView) -> SimWorker:
        """Who generates, once the prompt is computed; asked only when `place` left it open."""
        ...

    def look(self, fleet: FleetView) -> Sequence[Flip]:
        """Roles to be changed now."""
        ...
