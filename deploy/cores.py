"""Which cores each rank of the workers of one machine is pinned to."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Seat:
    """The place of a worker among all ranks that share its machine.

    Attributes:
        first: index of its rank 0 among them.
        num_ranks: how many ranks, of all workers, share the machine.
    """

    first: int
    num_ranks: int

    def cores(self, rank: int, cores: Sequence[int]) -> tuple[int, ...]:
        """Core ids of one of its ranks on a machine where `cores` may be used.

        Each rank gets an equal share of its own: two spinning thread pools on the same cores collapse to a fraction
        of the speed. With more ranks than cores, several share one, with one thread each.
        """
        usable = sorted(cores)
        share = max(1, len(usable) // self.num_ranks)
        first = ((self.first + rank) * share) % len(usable)
        return tuple(usable[first : first + share])


def seats_of(places: Sequence[tuple[str, int]]) -> list[Seat]:
    """A seat for each worker.

    Args:
        places: of each worker, its machine and its number of ranks.
    """
    totals: Counter[str] = Counter()
    for node, num_ranks in places:
        totals[node] += num_ranks
    seats, taken = [], Counter[str]()
    for node, num_ranks in places:
        seats.append(Seat(taken[node], totals[node]))
        taken[node] += num_ranks
    return seats
