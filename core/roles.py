"""What a worker is for, and orders that change it. Not who decides: that is `router.roles`."""

from dataclasses import dataclass

from core.request import Role


@dataclass(frozen=True, slots=True)
class RoleState:
    """What a worker is for now.

    The worker keeps it, so that all routers see the same, a restarted one included.

    Attributes:
        role: which half it is for.
        epoch: one more with every change; at least 1.
        is_cordoned: whether it is to get no new work.
        is_pinned: whether an operator has chosen the role, so that nothing else changes it.
        order_id: of the order that brought it about; empty at the start.
    """

    role: Role
    epoch: int = 1
    is_cordoned: bool = False
    is_pinned: bool = False
    order_id: str = ""

    def takes(self, half: Role) -> bool:
        """Whether the worker is to get new work of a half."""
        return not self.is_cordoned and self.role.serves(half)


@dataclass(frozen=True, slots=True)
class RoleOrder:
    """A wish to change what a worker is for.

    Attributes:
        order_id: comes back with the answer.
        role: what it is to be for.
        epoch: the worker's as the sender knows it; the order is refused when it is another one.
        is_cordoned: see `RoleState`.
        is_pinned: see `RoleState`.
    """

    order_id: str
    role: Role
    epoch: int
    is_cordoned: bool = False
    is_pinned: bool = False

    @property
    def result(self) -> RoleState:
        """The state that it leads to."""
        return RoleState(self.role, self.epoch + 1, self.is_cordoned, self.is_pinned, self.order_id)


@dataclass(frozen=True, slots=True)
class RoleRefusal:
    """Why an order changed nothing.

    Attributes:
        order_id: of the order.
        epoch: the worker's.
        message: for people.
    """

    order_id: str
    epoch: int
    message: str
