"""A dashboard over workers in memory, and the app of a router that has it. Orders go to the router's own director."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fastapi import FastAPI

from core.request import Role
from core.roles import RoleState
from router.auth.http_gate import HttpGate
from router.dashboard.feed import DashboardFeed
from router.dashboard.routes import dashboard_router
from router.dashboard.state import StateSource
from router.http.errors import install_error_handlers
from router.meter import RequestMeter
from router.roles.changes import OperatorAction, RoleChange, RoleStage
from router.roles.decision import Decision
from router.roles.director import RoleDirector
from tests.router.auth.keys import open_gate
from tests.router.builders import LIMITS, RecordingLink, request_watch
from tests.router.roles.world import NOW, RoleWorld

KEY = "0123456789abcdef-operator"


class ToldDirector(RoleDirector):
    """The router's director, which also tells of a past that a test has made up."""

    past_changes: Sequence[RoleChange] = ()
    past_decisions: Sequence[Decision] = ()
    past_actions: Sequence[OperatorAction] = ()
    other_alarms: Sequence[str] = ()

    def alarms(self) -> list[str]:
        return [*super().alarms(), *self.other_alarms]

    def changes(self, limit: int = 0) -> Sequence[RoleChange]:
        return [*super().changes(), *self.past_changes][: limit or None]

    def decisions(self, limit: int = 0) -> Sequence[Decision]:
        return [*super().decisions(), *self.past_decisions][: limit or None]

    def actions(self, limit: int = 0) -> Sequence[OperatorAction]:
        return [*super().actions(), *self.past_actions][: limit or None]


class DashboardWorld(RoleWorld):
    """A router's dashboard and everything behind it, in the test's hand; workers obey when the test says so."""

    def __init__(self, *links: RecordingLink, key: str | None = KEY, keys_file: Path | None = None) -> None:
        super().__init__(*links)
        self.now_at = NOW
        self.num_looks = 0
        self.director = ToldDirector(self.fleet, self.orders, self.autopilot, self.clock, lambda: self.now_at)
        self.meter = RequestMeter(self.clock, LIMITS)
        self.watch = request_watch(self.meter, clock=self.clock)
        self.source = StateSource(
            "tiny", self.fleet, self.director, self.meter, self._wall_clock, can_operate=key is not None
        )
        self.key = key
        self.keys_file = keys_file

    def feed(self, tick_s: float = 1.0) -> DashboardFeed:
        return DashboardFeed(self.source, tick_s)

    def app(self, feed: DashboardFeed) -> FastAPI:
        app = FastAPI()
        app.include_router(dashboard_router(feed, self.director))
        install_error_handlers(app)
        app.add_middleware(HttpGate, gate=open_gate(self.keys_file, operator_key=self.key))
        return app

    def flip(self, name: str, role: Role, actor: str, reason: str, *, is_pinned: bool = False) -> None:
        """A change of the past that somebody else has ordered: the worker is in the new role, which is verified."""
        link, number = self.link(name), len(self.director.past_changes)
        before = link.role_state
        after = RoleState(role, before.epoch + 1, is_pinned=is_pinned, order_id=f"past-{number}")
        self.be(name, after)
        change = RoleChange(
            after.order_id, link.worker, before.role, role, RoleStage.VERIFIED, actor, reason,
            ordered_at=self.now_at, changed_s=0.02, first_work_s=0.03, verified_s=0.4, num_migrated=2,
        )  # fmt: skip
        self.director.past_changes = [change, *self.director.past_changes]

    def be(self, name: str, state: RoleState) -> None:
        """A worker says that it is something else now, and nobody here has ordered it."""
        link = self.link(name)
        before = link.role_state
        link.hello = replace(link.attached, role_state=state)
        self.heard.on_role_state(link, before)

    def roles(self) -> list[Role]:
        return [link.role_state.role for link in self.fleet.links()]

    def _wall_clock(self) -> float:
        """Every state asks once what time it is."""
        self.num_looks += 1
        return self.now_at


def members() -> tuple[RecordingLink, ...]:
    """Two prefill workers and two decode workers."""
    roles = (Role.PREFILL, Role.PREFILL, Role.DECODE, Role.DECODE)
    return tuple(RecordingLink(f"worker-{number}", role) for number, role in enumerate(roles))
