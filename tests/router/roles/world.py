"""A fleet in memory whose workers answer orders about roles when the test says so."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

from core.clock import ManualClock
from core.events import ReturnedWork, TokenEvent, WorkerLoad
from core.request import Role
from core.roles import RoleRefusal, RoleState
from router.departure import RouterDeparture
from router.dispatch.dispatcher import FleetDispatcher
from router.fleet.observers import Observers
from router.roles.autopilot import Autopilot
from router.roles.changes import RoleProgress
from router.roles.decision import Decision
from router.roles.director import RoleDirector
from router.roles.leadership import Leadership
from router.roles.orders import RoleOrders
from router.roles.restarts import WorkerRestarts
from router.roles.router_restarts import OtherRouter, Restarts, RouterRestarts
from router.roles.shared_switch import SharedSwitch
from router.roles.snapshot import FleetSnapshot
from router.state.memory import MemoryState
from router.wire import StepReport
from tests.builders import runs_of
from tests.router.builders import LIMITS, MemoryFleet, RecordingLink, request_meter, request_watch

NOW = 1_700_000_000.0
DRAIN_TIMEOUT_S = 30.0


class ScriptedController:
    """Decides what the test says, and keeps what it saw."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        self.seen: list[FleetSnapshot] = []

    def decide(self, snapshot: FleetSnapshot) -> Decision:
        self.seen.append(snapshot)
        if self.decisions:
            return self.decisions.pop(0)
        return Decision(snapshot.now_s, "all stays", 1, 1, 1, 1)


class RoleWorld:
    """Everything that looks after roles, over workers in memory."""

    def __init__(self, *links: RecordingLink) -> None:
        self.clock = ManualClock()
        self.fleet = MemoryFleet()
        self.dispatcher = FleetDispatcher(
            request_timeout_s=100.0, placement_timeout_s=30.0, max_attempts=3, watch=request_watch()
        )
        self.dispatcher.bind(self.fleet)
        self.orders = RoleOrders(self.dispatcher.movements, self.clock, lambda: NOW)
        self.orders.bind(self.fleet)
        self.heard = Observers(self.dispatcher, self.orders)
        self.controller, self.meter, self.store = ScriptedController(), request_meter(), MemoryState(self.clock)
        self.switch = SharedSwitch(self.store, "auto", default=True)
        self.autopilot = Autopilot(
            fleet=self.fleet,
            orders=self.orders,
            dispatcher=self.dispatcher,
            take_demand=self.meter.take_demand,
            controller=self.controller,
            limits=LIMITS,
            leadership=Leadership(self.store, "me", self.clock),
            switch=self.switch,
            clock=self.clock,
        )
        self.director = RoleDirector(self.fleet, self.orders, self.autopilot, self.clock, lambda: NOW)
        self.restarts = WorkerRestarts(self.fleet, self.orders, self.director.audit, self.clock, DRAIN_TIMEOUT_S)
        self.departure = RouterDeparture(DRAIN_TIMEOUT_S)
        self.other_routers: list[OtherRouter] = []
        self.router_restarts = RouterRestarts(
            "router-1",
            self.departure,
            num_requests=lambda: self.dispatcher.num_active,
            others=lambda: self.other_routers,
            audit=self.director.audit,
            clock=self.clock,
        )
        self.all_restarts = Restarts(self.restarts, self.router_restarts)
        for link in links:
            self.attach(link)

    def attach(self, link: RecordingLink) -> None:
        self.fleet.members.append(link)
        self.heard.on_attached(link)

    def lose(self, link: RecordingLink) -> None:
        self.fleet.members.remove(link)
        self.heard.on_lost(link)

    def link(self, name: str) -> RecordingLink:
        return next(link for link in self.fleet.members if link.worker.name == name)

    def obey(self, name: str) -> RoleState:
        """The worker carries its order out and says so."""
        link = self.link(name)
        order = link.order
        assert order is not None, f"{name} has no order"
        before, after = link.role_state, link.role_state.after(order)
        link.hello, link.order = replace(link.attached, role_state=after), None
        self.heard.on_role_state(link, before)
        return after

    def refuse(self, name: str, message: str = "another epoch") -> None:
        link = self.link(name)
        assert link.order is not None, f"{name} has no order"
        refusal = RoleRefusal(link.order.order_id, link.role_state.epoch, message)
        link.order = None
        self.heard.on_role_refusal(link, refusal)

    def report(self, name: str, *words: TokenEvent | ReturnedWork, **load: float) -> None:
        """A report with the epoch that the worker is in."""
        link = self.link(name)
        link.load = WorkerLoad(role_epoch=link.role_state.epoch, **load)
        returned = [word for word in words if isinstance(word, ReturnedWork)]
        self.heard.on_report(link, StepReport(runs_of(words), returned, link.load))

    def pass_time(self, seconds: float) -> None:
        """In steps as the router looks after roles."""
        for _ in range(round(seconds / 0.25)):
            self.clock.advance(0.25)
            self.orders.tick()


class Watching:
    """Somebody who watches an order."""

    def __init__(self, progress: AsyncIterator[RoleProgress]) -> None:
        self.told: list[RoleProgress] = []
        self._news = asyncio.Event()
        self.task = asyncio.ensure_future(self._read(progress))

    async def _read(self, progress: AsyncIterator[RoleProgress]) -> None:
        async for each in progress:
            self.told.append(each)
            self._news.set()

    async def until(self, number: int) -> list[RoleProgress]:
        """Waits until so much was said."""
        async with asyncio.timeout(10):
            while len(self.told) < number and not self.task.done():
                self._news.clear()
                await asyncio.wait(
                    (self.task, asyncio.ensure_future(self._news.wait())), return_when="FIRST_COMPLETED"
                )
        if self.task.done():
            self.task.result()
        return self.told

    async def to_the_end(self) -> RoleProgress:
        """The last that is said."""
        async with asyncio.timeout(10):
            await self.task
        assert [each.is_last for each in self.told] == [False] * (len(self.told) - 1) + [True]
        return self.told[-1]


def worker(name: str, role: Role, incarnation: int = 1) -> RecordingLink:
    return RecordingLink(name, role, incarnation, num_blocks=1000)
