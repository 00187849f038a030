"""Which cores the two sides of a measurement are pinned to."""

import os


def two_cores() -> tuple[int, int]:
    """Two different ones where there are two."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[0], cores[-1]
