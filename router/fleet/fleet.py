"""The workers this router is attached to. Membership comes from the workers themselves, which register."""

import asyncio
import logging

from core.clock import Clock
from core.errors import ConfigError, StaleEpochError, UnavailableError
from core.ids import WorkerEndpoint, WorkerId
from core.request import Role
from router import wire
from router.fleet.link import FleetObserver, WorkerLink

logger = logging.getLogger(__name__)


class Fleet:
    """Keeps one link per worker name, to its newest incarnation. Used from the event loop only.

    Args:
        router_id: unique per router process.
        clock: for the age of what workers said.
        heartbeat_timeout_s: silence after which a worker is treated as dead.
        observer: hears what workers say.
    """

    def __init__(self, router_id: str, clock: Clock, heartbeat_timeout_s: float, observer: FleetObserver) -> None:
        self._router_id = router_id
        self._clock = clock
        self._heartbeat_timeout_s = heartbeat_timeout_s
        self._observer = observer
        self._links: dict[str, WorkerLink] = {}
        self._tasks: dict[WorkerId, asyncio.Task[None]] = {}
        self._refused: dict[WorkerId, str] = {}

    def links(self) -> list[WorkerLink]:
        """Attached workers, ordered by name."""
        return sorted((link for link in self._links.values() if link.hello), key=lambda link: link.worker)

    def with_role(self, role: Role) -> list[WorkerLink]:
        """Attached workers in a role, ordered by name."""
        return [link for link in self.links() if link.has_role(role)]

    def silent_s(self, link: WorkerLink) -> float:
        """Seconds since a worker was last heard."""
        return self._clock.now_s() - link.heard_s

    def register(self, endpoint: WorkerEndpoint) -> None:
        """Attaches to a worker unless that is done already. A newer incarnation replaces an older one.

        Raises:
            StaleEpochError: a newer incarnation is known.
            ConfigError: the worker cannot serve together with those already here.
        """
        worker = endpoint.worker
        if reason := self._refused.get(worker):
            raise ConfigError(reason)
        known = self._links.get(worker.name)
        if known is not None and known.worker == worker:
            return
        if known is not None and known.worker.supersedes(worker):
            raise StaleEpochError(f"worker {worker} was replaced by {known.worker}")
        if known is not None:
            self._tasks[known.worker].cancel()
        link = WorkerLink(endpoint, self._router_id, self._clock, self._heartbeat_timeout_s)
        self._links[worker.name] = link
        self._tasks[worker] = asyncio.create_task(self._run(link))

    async def close(self) -> None:
        """Detaches from all workers, which then drop this router's work."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- what links say (FleetObserver), checked before it goes on

    def on_attached(self, link: WorkerLink) -> None:
        """Lets a worker in, unless its answers would differ from those of the others."""
        other = next((known for known in self.links() if known is not link), None)
        difference = other and other.attached.difference(link.attached)
        if other is not None and difference:
            reason = f"worker {link.worker} cannot serve with {other.worker}: {difference}"
            self._refused[link.worker] = reason
            link.hello = None
            raise UnavailableError(reason)
        logger.info("worker %s attached as %s", link.worker, link.attached.role)
        self._observer.on_attached(link)

    def on_report(self, link: WorkerLink, report: wire.StepReport) -> None:
        """Passes a report on."""
        self._observer.on_report(link, report)

    def on_lost(self, link: WorkerLink) -> None:
        """Forgets a worker; it comes back by registering again."""
        if self._links.get(link.worker.name) is link:
            del self._links[link.worker.name]
        self._tasks.pop(link.worker, None)
        self._observer.on_lost(link)

    async def _run(self, link: WorkerLink) -> None:
        try:
            await link.run(self)
        except UnavailableError as error:
            logger.warning("%s", error)
        finally:
            self.on_lost(link)
