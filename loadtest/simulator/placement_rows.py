"""The router's placement table over a simulated fleet, whose workers say when they have changed."""

from core.request import Role
from loadtest.simulator.books import Books
from loadtest.simulator.crew import Crew
from loadtest.simulator.front_door import TURN
from loadtest.simulator.job import Job
from loadtest.simulator.view import decode_candidate, prefill_candidate
from loadtest.simulator.worker import SimWorker
from router.dispatch.placement_table import PlacementTable, Prospect


class PlacementRows:
    """Rows of the workers that live.

    Args:
        crew: these.
        books: on them.
        tpot_limit_s: bounds how fast workers compute prompts beside sequences.
    """

    def __init__(self, crew: Crew, books: Books, tpot_limit_s: float) -> None:
        self._crew = crew
        self._books = books
        self._tpot_limit_s = tpot_limit_s
        self._table = PlacementTable()
        self._roles: dict[SimWorker, Role] = {}  # in which they have rows

    def prospect(self, job: Job) -> Prospect:
        """What a request is to expect now, and where it goes."""
        for worker in self._crew.changed:
            self._set(worker)
        self._crew.changed.clear()
        return self._table.prospect(job.prompt_tokens, self._crew.prefixes.reach(job), TURN)

    def _set(self, worker: SimWorker) -> None:
        role = worker.role if self._crew.named(worker.id.name) is worker else None
        if role is not self._roles.get(worker):
            self._table.prefill.drop(worker.id)
            self._table.decode.drop(worker.id)
            self._roles.pop(worker, None)
        if role is None:
            return
        self._roles[worker] = role
        holder = self._crew.prefixes.holder(worker)
        if role is not Role.DECODE:
            self._table.prefill.set(prefill_candidate(worker, self._tpot_limit_s, 0), holder=holder)
        if role is not Role.PREFILL:
            self._table.decode.set(decode_candidate(worker, self._books.of(worker), 0), holder=holder)
