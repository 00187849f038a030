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
        self._kind_of: dict[WorkerId, Kind] = {}
        self._num_of: Counter[Kind] = Counter()

    @property
    def kinds(self) -> list[Kind]:
        """Those of all attached workers, each once."""
        return list(self._num_of)

    @property
    def num_prefill(self) -> int:
        """Workers that get prompts."""
        return len(self.table.prefill)

    def link(self, worker: WorkerId) -> WorkerLink:
        """A worker that the table has."""
        return self._links[worker]

    def refresh(self, fleet: Fleet) -> None:
        """Takes in what has changed since the last time. Called before each look at the table."""
        for link in fleet.take_changed():
            if fleet.find(link.worker) is link:
                self._put(fleet, link)
            elif self._links.get(link.worker) is link:
                self._drop(link.worker)

    def _put(self, fleet: Fleet, link: WorkerLink) -> None:
        worker = link.worker
        self._links[worker] = link
        self._set_kind(worker, (link.attached.fingerprint, link.attached.block_tokens))
        holder = fleet.prefixes.holder(worker)
        if link.takes(Role.PREFILL):
            self.table.prefill.set(prefill_candidate(link, self._tpot_limit_s), link.assigned_turns, holder)
        else:
            self.table.prefill.drop(worker)
        if link.takes(Role.DECODE):
            self.table.decode.set(decode_candidate(link), link.assigned_sequence_turns, holder)
        else:
            self.table.decode.drop(worker)

    def _drop(self, worker: WorkerId) -> None:
        del self._links[worker]
        self._set_kind(worker, None)
        self.table.prefill.drop(worker)
        self.table.decode.drop(worker)

    def _set_kind(self, worker: WorkerId, kind: Kind | None) -> None:
        before = self._kind_of.get(worker)
        if kind == before:
            return
        if before is not None:
            del self._kind_of[worker]
            self._num_of[before] -= 1
            if not self._num_of[before]:
                del self._num_of[before]
        if kind is not None:
            self._kind_of[worker] = kind
            self._num_of[kind] += 1
