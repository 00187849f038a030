"""Which cores each rank of the workers of one machine is pinned to."""

import os


def cores_of_rank(index: int, num_ranks: int) -> tuple[int, ...]:
    """Core ids for the `index`-th of all `num_ranks` ranks, of all workers, that share this machine.

    Each gets an equal share of its own: two spinning thread pools on the same cores collapse to a fraction of the
    speed. With more ranks than cores, several share one, with one thread each.
    """
    cores = sorted(os.sched_getaffinity(0))
    share = max(1, len(cores) // num_ranks)
    first = (index * share) % len(cores)
    return tuple(cores[first : first + share])
