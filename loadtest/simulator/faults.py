"""What goes wrong in a simulated fleet, and when."""

from dataclasses import dataclass
from typing import Protocol

from core.request import Role
from router.roles.decision import Flip


class FaultyFleet(Protocol):
    """What faults are done to."""

    def kill(self, name: str) -> None:
        """A worker dies, now; one that is dead already stays so. Another process of it starts."""
        ...

    def change(self, flip: Flip) -> None:
        """A worker takes a role, now; an order to one that is dead leads to nothing."""
        ...


@dataclass(frozen=True, slots=True)
class SimFault:
    """One of them.

    Attributes:
        at_s: when, in seconds since the start.
        worker: whose; one that is dead then stays as it is.
        role: that it takes; None where it dies.
    """

    at_s: float
    worker: str
    role: Role | None = None

    def happen(self, fleet: FaultyFleet) -> None:
        """Does it."""
        if self.role is None:
            fleet.kill(self.worker)
        else:
            fleet.change(Flip(self.worker, self.role))
