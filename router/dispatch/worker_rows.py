"""Workers in the order of their ids, each a row of numbers: what arrays over a fleet are kept in. Knows no policy."""

from bisect import bisect_left
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from core.ids import WorkerId

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

NOBODYS = np.iinfo(np.intp).max  # a place beyond all, which stands for the last: no holder is there

Reach = Sequence[tuple[int, int]]
"""Who has a prompt's beginning: sets of holders, see `PrefixIndex`, with leading tokens that all in a set have.
A holder has the most of all sets that it is in."""


def spread(reach: Reach) -> Floats:
    """Leading tokens that each holder has, by the place of its bit in sets: [num_places], the last of them nobody's.

    Args:
        reach: at least one set.
    """
    num_bytes = max(holders.bit_length() for holders, _ in reach) // 8 + 1
    joined = b"".join([holders.to_bytes(num_bytes, "little") for holders, _ in reach])
    sets = np.frombuffer(joined, np.uint8).reshape(len(reach), num_bytes)
    members = np.unpackbits(sets, axis=1, bitorder="little")  # [num_sets, num_places]
    if len(reach) == 1:
        tokens: Floats = members[0] * np.float64(reach[0][1])
        return tokens
    most: Floats = (members * np.array([[num_tokens] for _, num_tokens in reach], np.float64)).max(axis=0)
    return most


class WorkerRows:
    """Numbers by field and worker. Changing one row costs a microsecond; rows come and go at the cost of a copy.

    Args:
        num_fields: numbers of each worker.

    Attributes:
        workers: ids in rising order, so that the first of equals is the one that the policy takes.
        numbers: as last set.  # [num_fields, num_rows]
    """

    def __init__(self, num_fields: int) -> None:
        self.workers: list[WorkerId] = []
        self.numbers: Floats = np.zeros((num_fields, 0))
        self._row_of: dict[WorkerId, int] = {}
        self._places = np.zeros(0, np.intp)  # of a holder's bit in sets

    def __len__(self) -> int:
        return len(self.workers)

    def row(self, worker: WorkerId) -> int | None:
        """Where a worker is; None when it is not."""
        return self._row_of.get(worker)

    def insert(self, worker: WorkerId) -> int:
        """Adds a worker that is not there; rows after it move up by one."""
        row = bisect_left(self.workers, worker)
        self.workers.insert(row, worker)
        self.numbers = np.insert(self.numbers, row, 0.0, axis=1)
        self._places = np.insert(self._places, row, NOBODYS)
        self._number_rows()
        return row

    def delete(self, row: int) -> None:
        """Takes a worker out; rows after it move down by one."""
        del self.workers[row]
        self.numbers = np.delete(self.numbers, row, axis=1)
        self._places = np.delete(self._places, row)
        self._number_rows()

    def set(self, row: int, numbers: Sequence[float], holder: int) -> None:
        """A worker's first numbers, and the holder that it is in the prefix index; 0 for none."""
        self.numbers[: len(numbers), row] = numbers
        self._places[row] = holder.bit_length() - 1 if holder else NOBODYS

    def tokens(self, by_place: Floats) -> Floats:
        """Leading tokens of a prompt that each worker has, of what `spread` returned: [num_rows]."""
        return by_place.take(self._places, mode="clip")

    def among(self, workers: Collection[WorkerId]) -> Bools | None:
        """Which rows are some workers': [num_rows]; None when none is."""
        if not workers:
            return None
        rows = [row for worker in workers if (row := self._row_of.get(worker)) is not None]
        if not rows:
            return None
        mask = np.zeros(len(self.workers), np.bool_)
        mask[rows] = True
        return mask

    def _number_rows(self) -> None:
        self._row_of = {worker: row for row, worker in enumerate(self.workers)}
