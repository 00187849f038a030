"""Roles in memory, which change when they are told to, and the app of a router that has them."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from fastapi import FastAPI

from core.clock import ManualClock
from core.errors import InvalidRequestError, StaleEpochError
from core.ids import WorkerId
from core.request import Role
from core.roles import RoleState
from router.dashboard.feed import DashboardFeed
from router.dashboard.routes import dashboard_router
from router.dashboard.state import StateSource
from router.http.errors import install_error_handlers
from router.meter import RequestMeter
from router.roles.changes import OperatorAction, RoleChange, RoleProgress, RoleStage, WorkerRole
from router.roles.decision import Decision
from tests.router.builders import LIMITS, MemoryFleet, RecordingLink

KEY = "0123456789abcdef-operator"
START_AT = 1_800_000_000.0  # Unix seconds


class FakeRoles:
    """Implements `RoleOperations`: an order is carried out at once."""

    def __init__(self, fleet: MemoryFleet) -> None:
        self.limits = LIMITS
        self.is_auto = True
        self.is_leader = True
        self.now_at = START_AT
        self.states: dict[WorkerId, RoleState] = {}
        self.stored_changes: list[RoleChange] = []
        self.stored_decisions: list[Decision] = []
        self.stored_actions: list[OperatorAction] = []
        self.stored_alarms: list[str] = []
        self._fleet = fleet

    def workers(self) -> list[WorkerRole]:
        return [self._worker(link) for link in self._fleet.links()]

    def alarms(self) -> list[str]:
        return self.stored_alarms

    def changes(self, limit: int = 0) -> Sequence[RoleChange]:
        return self.stored_changes[: limit or None]

    def decisions(self, limit: int = 0) -> Sequence[Decision]:
        return self.stored_decisions[: limit or None]

    def actions(self, limit: int = 0) -> Sequence[OperatorAction]:
        return self.stored_actions[: limit or None]

    async def set_role(
        self, worker: str, role: Role | None, actor: str, *, epoch: int = 0, incarnation: int = 0
    ) -> AsyncIterator[RoleProgress]:
        known = self._known(worker)
        if epoch not in (0, known.state.epoch) or incarnation not in (0, known.worker.incarnation):
            raise StaleEpochError(f"{worker} is at epoch {known.state.epoch}")
        wanted = role or known.state.role
        self.flip(worker, wanted, actor, "an operator's order", is_pinned=role is not None)
        self.log(actor, f"set {worker} {role}")
        yield RoleProgress(worker, RoleStage.ORDERED, f"{worker} has been told to be a {wanted} worker")
        yield RoleProgress(worker, RoleStage.VERIFIED, "done", is_last=True)

    async def rebalance(
        self, num_prefill: int, num_decode: int, actor: str, *, is_dry_run: bool = False
    ) -> AsyncIterator[RoleProgress]:
        members = self.workers()
        if num_prefill + num_decode != len(members):
            raise InvalidRequestError(f"{num_prefill} and {num_decode} are not {len(members)} workers")
        wanted = [Role.PREFILL] * num_prefill + [Role.DECODE] * num_decode
        flips = [(w.worker.name, role) for w, role in zip(members, wanted, strict=True) if w.state.role is not role]
        for name, role in flips:
            if not is_dry_run:
                self.flip(name, role, actor, f"rebalance to {num_prefill} and {num_decode}", is_pinned=True)
            yield RoleProgress(name, RoleStage.ORDERED, f"{name} becomes a {role} worker")
        self.log(actor, f"rebalance {num_prefill} {num_decode}")
        yield RoleProgress("", RoleStage.VERIFIED, f"{len(flips)} changes", is_last=True)

    async def drain(self, worker: str, actor: str) -> AsyncIterator[RoleProgress]:
        known = self._known(worker)
        self.states[known.worker] = replace(known.state, is_cordoned=True)
        self.log(actor, f"drain {worker}")
        yield RoleProgress(worker, RoleStage.ORDERED, f"{worker} gets no new work")

    async def uncordon(self, worker: str, actor: str) -> None:
        known = self._known(worker)
        self.states[known.worker] = replace(known.state, is_cordoned=False)
        self.log(actor, f"uncordon {worker}")

    async def set_auto(self, actor: str, *, is_auto: bool) -> list[str]:
        self.is_auto = is_auto
        self.log(actor, f"auto {is_auto}")
        return [known.worker.name for known in self.workers() if known.state.is_pinned]

    def flip(self, name: str, role: Role, actor: str, reason: str, *, is_pinned: bool = False) -> None:
        """A change that is verified at once."""
        known = self._known(name)
        order_id = f"order-{len(self.stored_changes)}"
        self.states[known.worker] = RoleState(role, known.state.epoch + 1, is_pinned=is_pinned, order_id=order_id)
        change = RoleChange(
            order_id, known.worker, known.state.role, role, RoleStage.VERIFIED, actor, reason,
            ordered_at=self.now_at, changed_s=0.02, first_work_s=0.03, verified_s=0.4, num_migrated=2,
        )  # fmt: skip
        self.stored_changes.insert(0, change)

    def log(self, actor: str, action: str) -> None:
        self.stored_actions.insert(0, OperatorAction(self.now_at, actor, action, "done"))

    def _known(self, name: str) -> WorkerRole:
        for known in self.workers():
            if known.worker.name == name:
                return known
        raise InvalidRequestError(f"no worker {name!r} is attached", param="worker")

    def _worker(self, link: RecordingLink) -> WorkerRole:
        state = self.states.get(link.worker) or link.role_state
        mine = [change for change in self.stored_changes if change.worker == link.worker]
        load = link.load
        return WorkerRole(
            link.worker, state, 90.0, next(iter(mine), None), load.queued_prompts, load.running_sequences, 0
        )


class SeenFleet(MemoryFleet):
    """A fleet as the dashboard sees it."""

    def silent_s(self, link: RecordingLink) -> float:
        return 0.25 if link.hello else 60.0


class DashboardWorld:
    """A router's dashboard and everything behind it, in the test's hand."""

    def __init__(self, *links: RecordingLink, key: str | None = KEY) -> None:
        self.fleet = SeenFleet(*links)
        self.roles = FakeRoles(self.fleet)
        self.clock = ManualClock(1000.0)
        self.meter = RequestMeter(self.clock, LIMITS)
        self.num_looks = 0
        self.source = StateSource(
            "tiny", self.fleet, self.roles, self.meter, self._wall_clock, can_operate=key is not None
        )
        self.key = key

    def feed(self, tick_s: float = 1.0) -> DashboardFeed:
        return DashboardFeed(self.source, tick_s)

    def app(self, feed: DashboardFeed) -> FastAPI:
        app = FastAPI()
        app.include_router(dashboard_router(feed, self.roles, self.key))
        install_error_handlers(app)
        return app

    def _wall_clock(self) -> float:
        """Every state asks once what time it is."""
        self.num_looks += 1
        return self.roles.now_at


def members() -> tuple[RecordingLink, ...]:
    """Two prefill workers and two decode workers."""
    roles = (Role.PREFILL, Role.PREFILL, Role.DECODE, Role.DECODE)
    return tuple(RecordingLink(f"worker-{number}", role) for number, role in enumerate(roles))
