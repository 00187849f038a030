"""Has a router restart: its process leaves, and whoever owns it starts another one."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from router.departure import RouterDeparture
from router.roles.changes import RoleProgress, RoleStage
from router.roles.restarts import WorkerRestarts
from router.roles.role_log import AuditLog

ACTION = "restart routers"  # in the audit log


class RouterRestarts:
    """What operators order of routers. Runs on the event loop.

    Args:
        router_id: of this router.
        departure: of this router.
        num_requests: requests under way here.
        audit: hears of orders.

    Attributes:
        router_id: as given.
    """

    def __init__(
        self, router_id: str, departure: RouterDeparture, num_requests: Callable[[], int], audit: AuditLog
    ) -> None:
        self.router_id = router_id
        self._departure = departure
        self._num_requests = num_requests
        self._audit = audit

    async def restart(self, actor: str, drain_timeout_s: float | None) -> AsyncIterator[RoleProgress]:
        """Has this router leave, and tells so last.

        Args:
            actor: who orders it.
            drain_timeout_s: for requests under way to end; None takes the setting.

        Raises:
            InvalidRequestError: that is no time; nothing has changed.
        """
        with self._audit.refusing(actor, ACTION):
            self._departure.order(drain_timeout_s)
        self._audit.note(actor, ACTION, "done")
        message = f"the router leaves; {self._num_requests()} request(s) under way end first"
        yield RoleProgress("", RoleStage.CHANGED, message, is_last=True)


@dataclass(frozen=True, slots=True)
class Restarts:
    """Who restarts what.

    Attributes:
        workers: restarts workers in turn.
        routers: restarts routers.
    """

    workers: WorkerRestarts
    routers: RouterRestarts
