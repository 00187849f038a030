"""What this worker is for, and orders that change it. What a change does to the halves is the loop's."""

import logging
from collections.abc import Callable

from core.clock import Clock
from core.errors import DrainingError, StaleEpochError
from core.ids import WorkerId
from core.request import Role
from core.roles import RoleOrder, RoleState

OnRole = Callable[[RoleState, float], None]
"""Hears, on the event loop, of a new state and when the order for it came, on the clock."""

logger = logging.getLogger(__name__)


class RoleBook:
    """Compares and sets: of two orders made for one epoch, the first changes the role. On the event loop only.

    Args:
        worker: this one.
        role: at the start.
        clock: says when orders came.
        on_change: carries a change out; called before `order` returns.

    Attributes:
        state: what it is for now.
    """

    def __init__(self, worker: WorkerId, role: Role, clock: Clock, on_change: OnRole) -> None:
        self._worker = worker
        self._clock = clock
        self._on_change = on_change
        self.state = RoleState(role)

    def order(self, order: RoleOrder) -> RoleState:
        """Takes an order; returns the state it has led to.

        Raises:
            StaleEpochError: it was made for another epoch; nothing has changed.
        """
        ordered_s = self._clock.now_s()
        self.state = self.state.after(order)
        logger.info("worker %s is %s now, role epoch %d", self._worker, self.state.role, self.state.epoch)
        self._on_change(self.state, ordered_s)
        return self.state

    def leave(self) -> RoleState:
        """The worker's process is about to end; returns the state that all routers must hear of."""
        self.state = self.state.leaving()
        return self.state

    def check_serving(self) -> None:
        """Makes sure that the worker is not leaving.

        Raises:
            DrainingError: it is; the work belongs elsewhere.
        """
        if self.state.is_leaving:
            raise DrainingError(f"worker {self._worker} is leaving and takes no more work")

    def check_epoch(self, epoch: int) -> None:
        """Makes sure that whoever assigned work knew what this worker is for.

        Raises:
            StaleEpochError: it did not; the work belongs elsewhere now.
        """
        if epoch != self.state.epoch:
            raise StaleEpochError(f"role epoch {epoch} is stale; worker {self._worker} is at {self.state.epoch}")
