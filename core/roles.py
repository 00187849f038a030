"""What a worker is for, and orders that change it. Not who decides: that is `router.roles`."""

from dataclasses import dataclass, replace

from core.errors import StaleEpochError
from core.request import Role


@dataclass(frozen=True, slots=True)
class RoleState:
    """What a worker is for now.

    The worker keeps it, so that all routers see the same, a restarted one included.

    Attributes:
        role: which half it is for.
        epoch: one more with every change of role; at least 1.
        revision: one more with every order that was taken.
        is_cordoned: whether it is to get no new work.
        is_pinned: whether an operator has chosen the role, so that nothing else changes it.
        order_id: of the order that brought it about; empty at the start.
        is_leaving: whether its process is about to end: it gets no new work, and this is never taken back. A new
            incarnation of the worker is not leaving.
    """

    role: Role
    epoch: int = 1
    is_cordoned: bool = False
    is_pinned: bool = False
    order_id: str = ""
    revision: int = 0
    is_leaving: bool = False

    def after(self, order: "RoleOrder") -> "RoleState":
        """The state that an order leads to from here.

        Raises:
            StaleEpochError: the order was made for another state.
        """
        if (order.epoch, order.revision) != (self.epoch, self.revision):
            raise StaleEpochError(
                f"the order is for role epoch {order.epoch}.{order.revision} and the worker is at {self.epoch}."
                f"{self.revision} ({self.role}): it was changed meanwhile; look at `baton roles show` and try again"
            )
        epoch = self.epoch + (order.role is not self.role)
        return replace(
            self,
            role=order.role,
            epoch=epoch,
            is_cordoned=order.is_cordoned,
            is_pinned=order.is_pinned,
            order_id=order.order_id,
            revision=self.revision + 1,
        )

    def leaving(self) -> "RoleState":
        """The same, of a worker whose process is about to end."""
        return replace(self, is_leaving=True)

    @property
    def gets_no_work(self) -> bool:
        """Whether the worker is to get no new work of any half."""
        return self.is_cordoned or self.is_leaving

    def takes(self, half: Role) -> bool:
        """Whether the worker is to get new work of a half."""
        return not self.gets_no_work and self.role.serves(half)


@dataclass(frozen=True, slots=True)
class RoleOrder:
    """A wish to change what a worker is for.

    Attributes:
        order_id: comes back with the answer.
        role: what it is to be for.
        epoch: the worker's as the sender knows it; the order is refused when it is another one.
        revision: likewise; so a pin that the sender has not heard of is not undone.
        is_cordoned: see `RoleState`.
        is_pinned: see `RoleState`.
    """

    order_id: str
    role: Role
    epoch: int
    is_cordoned: bool = False
    is_pinned: bool = False
    revision: int = 0


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
