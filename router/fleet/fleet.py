"""The workers this router is attached to. Membership comes from the workers themselves, which register."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

from core.clock import Clock
from core.errors import BatonError, ConfigError, InvalidRequestError, StaleEpochError
from core.ids import WorkerEndpoint, WorkerId
from core.request import Role
from core.roles import RoleRefusal, RoleState
from router import wire
from router.fleet.awake_clock import AwakeClock
from router.fleet.graves import Graves
from router.fleet.link import FleetObserver, WorkerLink
from router.fleet.members import Members
from router.fleet.prefixes import FleetPrefixes
from router.fleet.pulse import Pulse, SilentWorker
from rpc.security import OPEN, RpcSecurity

TICK_S = 1.0  # silence is counted in steps no longer than about this, see `AwakeClock`

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a worker is not let in, however often it registers.

    Attributes:
        worker: who is refused; another incarnation may do better.
        reason: what is wrong, with the values.
        because_of: whom it cannot serve with; the refusal ends when that worker is gone. None: it is wrong by itself.
    """

    worker: WorkerId
    reason: str
    because_of: WorkerId | None = None


class Fleet:
    """Keeps one link per worker name, to its newest incarnation. Used from the event loop only.

    Args:
        router_id: unique per router process.
        clock: for the age of what workers said.
        heartbeat_timeout_s: silence after which a worker is treated as dead.
        observer: hears what workers say.
        security: of the workers' servers.

    Attributes:
        prefixes: who has which KV blocks.
        members: what the supervisor says of the cluster's processes.
    """

    def __init__(
        self,
        router_id: str,
        clock: Clock,
        heartbeat_timeout_s: float,
        observer: FleetObserver,
        security: RpcSecurity = OPEN,
    ) -> None:
        self._router_id = router_id
        self._clock = clock
        self._heartbeat_timeout_s = heartbeat_timeout_s
        self._observer = observer
        self._security = security
        self._links: dict[str, WorkerLink] = {}
        self._changed: set[WorkerLink] = set()
        self._tasks: dict[WorkerLink, asyncio.Task[None]] = {}  # until they are done, replaced ones too
        self._refusals: dict[str, Refusal] = {}
        self.prefixes = FleetPrefixes()
        self.members = Members()
        self._awake = AwakeClock(clock)
        self._pulse = Pulse(self._awake)
        self._graves = Graves()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While the context lasts, the silence of workers is counted; it ends with `close`."""
        ticking = asyncio.create_task(self._tick())
        try:
            yield
        finally:
            ticking.cancel()
            await self.close()

    async def _tick(self) -> None:
        while True:
            self._awake.now_s()
            await asyncio.sleep(TICK_S)

    def links(self) -> list[WorkerLink]:
        """Attached workers, ordered by name."""
        return sorted((link for link in self._links.values() if link.hello), key=lambda link: link.worker)

    def taking(self, half: Role) -> list[WorkerLink]:
        """Attached workers that get new work of a half, ordered by name."""
        return [link for link in self.links() if link.takes(half)]

    def has(self, link: WorkerLink) -> bool:
        """Whether a worker is attached."""
        return link.hello is not None and self._links.get(link.worker.name) is link

    def take_changed(self) -> list[WorkerLink]:
        """The workers, attached or not, of which something has changed since the last call that placement sees."""
        changed = list(self._changed)
        self._changed.clear()
        return changed

    def why_missing(self) -> str:
        """Why workers do not run, one clause each, to be put behind a sentence; empty when all do."""
        return self.members.why_missing()

    def silent_s(self, link: WorkerLink) -> float:
        """Seconds since a worker was last heard."""
        return self._clock.now_s() - link.heard_s

    def silent_workers(self, for_s: float) -> list[SilentWorker]:
        """Workers, attached, lost or refused, not heard for so long and not known to be dead: their loops are meant.

        Time in which this router was itself held up does not count.
        """
        return self._pulse.silent(for_s)

    def register(self, endpoint: WorkerEndpoint) -> None:
        """Attaches to a worker unless that is done already. A newer incarnation replaces an older one.

        Raises:
            InvalidRequestError: the worker has no name or no address.
            StaleEpochError: a newer incarnation is known, or it was found dead.
            ConfigError: the worker cannot serve here, or not together with those already here.
        """
        worker = endpoint.worker
        if not worker.name or not endpoint.address:
            raise InvalidRequestError(f"worker {worker} at {endpoint.address!r} has no name or no address")
        if (refusal := self._refusals.get(worker.name)) and refusal.worker == worker and self._holds(refusal):
            raise ConfigError(refusal.reason)
        known = self._links.get(worker.name)
        if known is not None and known.worker == worker:
            return
        latest = self._pulse.latest(worker.name)
        if latest is not None and latest.supersedes(worker):
            raise StaleEpochError(f"worker {worker} was replaced by {latest}")
        if worker in self._graves:
            raise StaleEpochError(f"worker {worker} was found dead; it comes back as a new incarnation only")
        self._bury_before(worker)
        self._pulse.expect(worker)
        self._refusals.pop(worker.name, None)
        link = WorkerLink(endpoint, self._router_id, self._clock, self._heartbeat_timeout_s, self._security)
        if (replaced := self._links.get(worker.name)) is not None:
            replaced.touch()
        self._links[worker.name] = link
        task = self._tasks[link] = asyncio.create_task(self._run(link))
        task.add_done_callback(lambda _: self._tasks.pop(link))

    def worker_gone(self, worker: WorkerId) -> None:
        """A process of a worker is known to be dead, and with it every earlier one: all other workers hear it.

        Idempotent; of no effect on later incarnations.

        Raises:
            InvalidRequestError: no such incarnation has come yet, so nobody can know that it is dead.
        """
        if worker in self._graves:
            return
        latest = self._pulse.latest(worker.name)
        if latest is None or worker.supersedes(latest):
            raise InvalidRequestError(f"worker {worker} is not known; the latest of that name is {latest}")
        logger.info("worker %s is dead", worker)
        self._bury(worker)

    async def close(self) -> None:
        """Detaches from all workers, which then drop this router's work."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- what links say (FleetObserver), checked before it goes on

    def on_attached(self, link: WorkerLink) -> None:
        """Lets a worker in.

        Raises:
            ConfigError: its answers would differ from those of the others.
            StaleEpochError: another worker, or another incarnation, answers at its address.
        """
        there = link.attached.endpoint.worker
        if there != link.worker:
            raise StaleEpochError(f"worker {link.worker} is gone; at {link.endpoint.address} is {there}")
        for other in self.links():
            if difference := other.attached.difference(link.attached):
                reason = f"worker {link.worker} cannot serve with {other.worker}: {difference}"
                self._refusals[link.worker.name] = Refusal(link.worker, reason, because_of=other.worker)
                raise ConfigError(reason)
        logger.info("worker %s attached as %s", link.worker, link.role_state.role)
        link.changed = self._changed
        link.touch()
        self._pulse.introduce(link.worker, link.attached.processes)
        for dead in self._graves:
            link.tell_gone(dead)
        self._observer.on_attached(link)

    def on_report(self, link: WorkerLink, report: wire.StepReport) -> None:
        """Passes a report on, but for what it says of KV blocks."""
        self._pulse.heard(link.worker)
        if self.prefixes.hear(link.worker, report):
            link.ask_kv_snapshot()
        self._observer.on_report(link, report)

    def on_role_state(self, link: WorkerLink, before: RoleState) -> None:
        """Passes on that a worker is for something else."""
        self._observer.on_role_state(link, before)

    def on_role_refusal(self, link: WorkerLink, refusal: RoleRefusal) -> None:
        """Passes on that an order changed nothing."""
        self._observer.on_role_refusal(link, refusal)

    def on_lost(self, link: WorkerLink) -> None:
        """Forgets a worker; it comes back by registering again."""
        if self._links.get(link.worker.name) is link:
            del self._links[link.worker.name]
        link.touch()
        self.prefixes.forget(link.worker)
        self._observer.on_lost(link)

    def _bury_before(self, worker: WorkerId) -> None:
        """Whoever starts workers starts one again only when it has ended: all incarnations before it are dead.

        Also those of which this router knows nothing, for others may: it may be younger than their deaths.
        """
        if (before := worker.incarnation - 1) > 0:
            self._bury(WorkerId(worker.name, before))

    def _bury(self, worker: WorkerId) -> None:
        if self._graves.add(worker):
            self._pulse.forget(worker)
            self._detach(worker)
            for link in self.links():
                link.tell_gone(worker)

    def _detach(self, gone: WorkerId) -> None:
        """Nothing more is placed on a dead worker, at once; the observer hears of it when its stream has ended."""
        known = self._links.get(gone.name)
        if known is not None and gone.outlasts(known.worker):
            del self._links[gone.name]
            known.touch()
            self._tasks[known].cancel()

    def _holds(self, refusal: Refusal) -> bool:
        return refusal.because_of is None or any(link.worker == refusal.because_of for link in self.links())

    async def _run(self, link: WorkerLink) -> None:
        """Whatever happens to one link ends that link only."""
        try:
            await link.run(self)
        except ConfigError as error:
            logger.error("%s", error)  # noqa: TRY400 - no trace: not our bug
            self._pulse.ignore(link.worker)
            self._refusals.setdefault(link.worker.name, Refusal(link.worker, error.message))
        except BatonError as error:
            logger.warning("%s", error)
        except Exception:
            logger.exception("worker %s is detached because of a defect in the router", link.worker)
        finally:
            self._lose(link)

    def _lose(self, link: WorkerLink) -> None:
        try:
            self.on_lost(link)
        except Exception:
            logger.exception("a defect in the router: the loss of worker %s was not handled", link.worker)
