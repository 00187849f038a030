"""What the controller has ordered, until the fleet shows it."""

from dataclasses import dataclass, replace

from core.request import Role
from router.roles.decision import Decision
from router.roles.snapshot import FleetSnapshot, WorkerView


@dataclass(frozen=True, slots=True)
class Order:
    """The last change ordered of a worker; open until it has been seen not to be changing any more."""

    role: Role
    at_s: float
    is_open: bool = True


class FlipMemory:
    """Remembers the last order of each attached worker."""

    def __init__(self) -> None:
        self._orders: dict[str, Order] = {}

    def effective(self, snapshot: FleetSnapshot) -> tuple[WorkerView, ...]:
        """The workers, those that are changing in the role that they were ordered to take."""
        is_changing = {worker.name: worker.is_changing for worker in snapshot.workers}
        self._orders = {
            name: replace(order, is_open=order.is_open and is_changing[name])
            for name, order in self._orders.items()
            if name in is_changing
        }
        return tuple(self._effective(worker) for worker in snapshot.workers)

    def note(self, decision: Decision) -> None:
        """Remembers a decision's flips."""
        self._orders |= {flip.worker: Order(flip.role, decision.at_s) for flip in decision.flips}

    def since_ordered_s(self, worker: WorkerView, now_s: float) -> float:
        """Seconds since a change of the worker was ordered; infinite when none was. Also one that was refused."""
        order = self._orders.get(worker.name)
        return now_s - order.at_s if order else float("inf")

    def _effective(self, worker: WorkerView) -> WorkerView:
        order = self._orders.get(worker.name)
        return replace(worker, role=order.role) if order and order.is_open else worker
