"""The placement table of a fleet: follows what changes at its workers, one row at a time. Decides nothing."""

from collections import Counter

from core.ids import WorkerId
from core.request import Role
from router.dispatch.ledger import decode_candidate, prefill_candidate
from router.dispatch.placement_table import PlacementTable
from router.fleet.fleet import Fleet
from router.fleet.link import WorkerLink

Kind = tuple[str, int]
"""Fingerprint and block size of a worker: what the names of a prompt's blocks depend on, but for the prompt."""


class FleetTable:
    """Rows for the workers of a fleet.

    Args:
        tpot_limit_s: bounds how fast mixed workers compute prompts.

    Attributes:
        table: as of the last `refresh`.
    """

    def __init__(self, tpot_limit_s: float) -> None:
        self.table = PlacementTable()
        self._tpot_limit_s = tpot_limit_s
        self._links: dict[WorkerId, WorkerLink] = {}
        self._kind_of: dict[WorkerLink, Kind] = {}  # it has had since it attached
        self._num_of: Counter[Kind] = Counter()

    @property
    def kinds(self) -> list[Kind]:
        """Those of all attached workers, each once."""
        return list(self._num_of)

    @property
    def num_prefill(self) -> int:
        """Workers that get prompts."""
        return len(self.table.prefill)

    def find(self, worker: WorkerId) -> WorkerLink | None:
        """The attached worker of an id; None when there is none."""
        return self._links.get(worker)

    def link(self, worker: WorkerId) -> WorkerLink:
        """A worker that the table has."""
        return self._links[worker]

    def refresh(self, fleet: Fleet) -> None:
        """Takes in what has changed since the last time. Called before each look at the table."""
        changed = fleet.take_changed()
        for link in changed:  # these first: a worker that came back has another link and the same id
            if link in self._kind_of and not fleet.has(link):
                self._drop(link)
        for link in changed:
            if fleet.has(link):
                if link not in self._kind_of:
                    self._add(link)
                self._put(fleet, link)

    def _add(self, link: WorkerLink) -> None:
        self._links[link.worker] = link
        self._kind_of[link] = kind = link.attached.fingerprint, link.attached.block_tokens
        self._num_of[kind] += 1

    def _put(self, fleet: Fleet, link: WorkerLink) -> None:
        worker = link.worker
        holder = fleet.prefixes.holder(worker)
        if link.takes(Role.PREFILL):
            self.table.prefill.set(prefill_candidate(link, self._tpot_limit_s), link.assigned_turns, holder)
        else:
            self.table.prefill.drop(worker)
        if link.takes(Role.DECODE):
            self.table.decode.set(decode_candidate(link), link.assigned_sequence_turns, holder)
        else:
            self.table.decode.drop(worker)

    def _drop(self, link: WorkerLink) -> None:
        self._links.pop(link.worker)
        kind = self._kind_of.pop(link)
        self._num_of[kind] -= 1
        if not self._num_of[kind]:
            del self._num_of[kind]
        self.table.prefill.drop(link.worker)
        self.table.decode.drop(link.worker)
