"""Faults of a timeline, as `baton load --at` has them, done to a simulated fleet at their times."""

from collections.abc import Collection, Sequence
from typing import Protocol

from core.errors import ConfigError
from core.request import Role
from loadtest.load.faults import Deed, Fault
from loadtest.simulator.worker import SimWorker
from router.roles.decision import Flip

DEEDS = (Deed.KILL, Deed.FLIP)
"""Those that are simulated."""


class FaultyFleet(Protocol):
    """What faults are done to."""

    def living(self, name: str) -> SimWorker | None:
        """The living process of a worker; None while it has none."""
        ...

    def kill(self, worker: SimWorker) -> None:
        """A worker dies, now. Another process of it starts."""
        ...

    def change(self, flip: Flip) -> None:
        """A worker takes a role, now."""
        ...


def check_faults(faults: Sequence[Fault], names: Collection[str]) -> None:
    """Makes sure that a simulated fleet can have these faults.

    Args:
        faults: which.
        names: of the workers.

    Raises:
        ConfigError: one cannot be simulated, or is of a worker that there is not.
    """
    for fault in faults:
        if fault.deed not in DEEDS:
            raise ConfigError(f"{fault.what!r} cannot be simulated; {' and '.join(DEEDS)} can")
        if fault.name not in names:
            raise ConfigError(f"{fault.what!r} is of no simulated worker; they are {min(names)} to {max(names)}")


def do_fault(fault: Fault, fleet: FaultyFleet) -> None:
    """Does one; a worker that is dead has nothing done to it."""
    worker = fleet.living(fault.name)
    if worker is None:
        return
    if fault.deed is Deed.KILL:
        fleet.kill(worker)
        return
    other = Role.DECODE if worker.role is Role.PREFILL else Role.PREFILL
    fleet.change(Flip(fault.name, fault.role or other))
