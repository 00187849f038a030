"""Has the controller look at the fleet every second, and carries out what it decides."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from core.clock import Clock
from core.errors import BatonError
from router.dispatch.dispatcher import FleetDispatcher
from router.fleet.by_name import link_named
from router.fleet.fleet import Fleet
from router.fleet.link import WorkerLink
from router.roles.changes import CONTROLLER
from router.roles.decision import Decision, Flip
from router.roles.leadership import Leadership
from router.roles.orders import RoleOrders
from router.roles.role_log import Latest
from router.roles.shared_switch import SharedSwitch
from router.roles.snapshot import Demand, FleetSnapshot, Limits, WorkerView

KEPT_EVERY_S = 60.0  # a decision that changes nothing is kept this often, so that `why` always has an answer

logger = logging.getLogger(__name__)


class Controller(Protocol):
    """Decides on roles; `router.roles.controller.RoleController`."""

    def decide(self, snapshot: FleetSnapshot) -> Decision:
        """What should change now."""
        ...


class Autopilot:
    """The controller's eyes and hands. Runs on the event loop.

    Args:
        fleet: the workers there are.
        orders: carries flips out.
        dispatcher: knows what waits.
        take_demand: what was asked for since the last call.
        controller: decides.
        limits: what it works towards.
        leadership: whether this router's controller is the one that decides.
        switch: whether any does.
        clock: the snapshots'.
    """

    def __init__(
        self,
        *,
        fleet: Fleet,
        orders: RoleOrders,
        dispatcher: FleetDispatcher,
        take_demand: Callable[[], Demand],
        controller: Controller,
        limits: Limits,
        leadership: Leadership,
        switch: SharedSwitch,
        clock: Clock,
    ) -> None:
        self.limits = limits
        self._fleet = fleet
        self._orders = orders
        self._dispatcher = dispatcher
        self._take_demand = take_demand
        self._controller = controller
        self._leadership = leadership
        self._switch = switch
        self._clock = clock
        self._decisions: Latest[Decision] = Latest()
        self._kept_s = float("-inf")

    @property
    def is_on(self) -> bool:
        """Whether the controller decides."""
        return self._switch.is_on

    @property
    def is_leader(self) -> bool:
        """Whether it is this router's."""
        return self._leadership.is_leader

    def alarms(self) -> list[str]:
        """Why routers cannot agree now on who decides; empty when they can."""
        trouble = self._leadership.trouble
        return [] if trouble is None else [f"routers cannot agree on who decides: {trouble}"]

    async def switch(self, *, is_on: bool) -> None:
        """Has the controller decide, or not.

        Raises:
            UnavailableError: the other routers cannot be told.
        """
        await self._switch.set(is_on=is_on)

    async def resign(self) -> None:
        """Lets another router's controller decide."""
        await self._leadership.resign()

    def decisions(self, limit: int = 0) -> Sequence[Decision]:
        """The latest, newest first: those that changed something, and one a minute of the others."""
        return self._decisions.newest(limit)

    async def tick(self) -> None:
        """Looks at the fleet once; every second or so."""
        await asyncio.gather(self._leadership.refresh(), self._switch.refresh())
        snapshot = self.snapshot()
        if self.is_on and self.is_leader:
            self._carry_out(self._controller.decide(snapshot))

    def snapshot(self) -> FleetSnapshot:
        """The fleet now, and what was asked for since the last snapshot."""
        now_s, num_leaving = self._clock.now_s(), self._dispatcher.movements.count_leaving()
        return FleetSnapshot(
            now_s=now_s,
            workers=tuple(self._view(link, num_leaving[link]) for link in self._fleet.links()),
            demand=self._take_demand(),
            limits=self.limits,
            waiting_prompts=self._dispatcher.num_waiting,
            oldest_waiting_s=self._dispatcher.oldest_waiting_s(now_s),
        )

    def _view(self, link: WorkerLink, num_leaving: int) -> WorkerView:
        hello, state = link.attached, link.role_state
        return WorkerView(
            name=link.worker.name,
            role=state.role,
            is_pinned=state.is_pinned,
            is_cordoned=state.gets_no_work,
            is_changing=link.order is not None or num_leaving > 0,
            since_s=self._orders.since_s(link),
            cost=link.cost,
            queued_prompts=link.load.queued_prompts,
            pending_prompt_tokens=link.pending_prompt_tokens,
            running_sequences=link.num_sequences,
            context_tokens=link.num_context_tokens,
            max_num_seqs=hello.max_num_seqs,
            kv_tokens=hello.num_blocks * hello.block_tokens,
        )

    def _carry_out(self, decision: Decision) -> None:
        if decision.flips or decision.at_s - self._kept_s >= KEPT_EVERY_S:
            self._kept_s = decision.at_s
            self._decisions.add(decision)
        for flip in decision.flips:
            self._flip(flip, decision.reason)

    def _flip(self, flip: Flip, reason: str) -> None:
        try:
            link = link_named(self._fleet.links(), flip.worker)
            if not link.role_state.is_pinned:
                self._orders.send(link, CONTROLLER, reason, role=flip.role)
        except BatonError as error:
            logger.info("%s", error)
