"""What is left of a load after its end: blocks that nobody needs any more, and workers that have not come back."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from baton.v1 import control_pb2

POLL_S = 0.2
SETTLE_TIMEOUT_S = 60.0  # twice a lease; a worker has been started again by then

Statuses = Callable[[], Sequence[control_pb2.WorkerStatus]]
"""Says what is known of the workers that are attached."""


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What a cluster without requests has in use, when it should have nothing.

    Attributes:
        blocks: leased, in quarantine or running, at all workers.
        missing_workers: that are not attached.
    """

    blocks: int
    missing_workers: int

    @property
    def is_nothing(self) -> bool:
        """Whether all is as it should be."""
        return not (self.blocks or self.missing_workers)


def leftovers(statuses: Statuses, num_workers: int, timeout_s: float = SETTLE_TIMEOUT_S) -> Leftovers:
    """Waits until nothing is left; what is after the time."""
    deadline_s = time.monotonic() + timeout_s
    while not (left := _look(statuses(), num_workers)).is_nothing and time.monotonic() < deadline_s:
        time.sleep(POLL_S)
    return left


def _look(workers: Sequence[control_pb2.WorkerStatus], num_workers: int) -> Leftovers:
    loads = [worker.load for worker in workers]
    held = sum(load.blocks_leased + load.blocks_quarantined + load.blocks_running for load in loads)
    return Leftovers(held, num_workers - len(workers))
