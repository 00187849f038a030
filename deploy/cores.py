"""Which cores each worker of one machine is pinned to."""

import os


def cores_of_worker(index: int, num_workers: int) -> tuple[int, ...]:
    """Core ids for the worker `index` of `num_workers` that share this machine.

    Each gets an equal share of its own: two spinning thread pools on the same cores collapse to a fraction of the
    speed. With more workers than cores, several share one, with one thread each.
    """
    cores = sorted(os.sched_getaffinity(0))
    share = max(1, len(cores) // num_workers)
    first = (index * share) % len(cores)
    return tuple(cores[first : first + share])
