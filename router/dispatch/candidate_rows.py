"""What the arrays of both halves have in common: rows of numbers, cost curves and books by turns, one per worker."""

from core.ids import WorkerId
from router.dispatch.curve_rows import CurveRows
from router.dispatch.turn_rows import TurnRows
from router.dispatch.worker_rows import WorkerRows


class CandidateRows:
    """The workers of one half.

    Args:
        num_fields: numbers of each worker.
    """

    def __init__(self, num_fields: int) -> None:
        self._rows = WorkerRows(num_fields)
        self._curves = CurveRows()
        self._turns = TurnRows()

    def __len__(self) -> int:
        return len(self._rows)

    def drop(self, worker: WorkerId) -> None:
        """A worker gets no work of this half any more; one that got none is ignored."""
        row = self._rows.row(worker)
        if row is not None:
            self._rows.delete(row)
            self._curves.delete(row)
            self._turns.delete(row)

    def _row(self, worker: WorkerId) -> int:
        """Where a worker is; one that was not here is added, with nothing set."""
        row = self._rows.row(worker)
        if row is None:
            row = self._rows.insert(worker)
            self._curves.insert(row)
            self._turns.insert(row)
        return row
