"""Several who hear what workers say, as one."""

from core.roles import RoleRefusal, RoleState
from router.fleet.link import FleetObserver, WorkerLink
from router.wire import StepReport


class Observers:
    """Implements `FleetObserver`: each hears everything, in the order they were given.

    Args:
        observers: those that hear; a failure of one keeps it from those after it, and ends the link.
    """

    def __init__(self, *observers: FleetObserver) -> None:
        self._observers = observers

    def on_attached(self, link: WorkerLink) -> None:
        """See `FleetObserver.on_attached`."""
        for observer in self._observers:
            observer.on_attached(link)

    def on_report(self, link: WorkerLink, report: StepReport) -> None:
        """See `FleetObserver.on_report`."""
        for observer in self._observers:
            observer.on_report(link, report)

    def on_role_state(self, link: WorkerLink, before: RoleState) -> None:
        """See `FleetObserver.on_role_state`."""
        for observer in self._observers:
            observer.on_role_state(link, before)

    def on_role_refusal(self, link: WorkerLink, refusal: RoleRefusal) -> None:
        """See `FleetObserver.on_role_refusal`."""
        for observer in self._observers:
            observer.on_role_refusal(link, refusal)

    def on_lost(self, link: WorkerLink) -> None:
        """See `FleetObserver.on_lost`."""
        for observer in self._observers:
            observer.on_lost(link)
