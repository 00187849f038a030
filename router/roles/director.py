"""What operators order about roles: checked, carried out, watched, and written to the audit log."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import replace

from core.clock import Clock
from core.errors import BatonError, StaleEpochError
from core.request import Role
from core.roles import RoleState
from router.fleet.by_name import link_named
from router.fleet.fleet import Fleet
from router.fleet.link import WorkerLink
from router.roles.autopilot import Autopilot
from router.roles.changes import OperatorAction, RoleChange, RoleProgress, RoleStage, WorkerRole
from router.roles.decision import Decision
from router.roles.orders import RoleOrders
from router.roles.role_log import AuditLog
from router.roles.snapshot import Limits
from router.roles.split import Member, check_floor, plan_split
from router.roles.watch import is_news, is_settled, progress_of, summary

WATCH_S = 0.1  # between two looks at a change that somebody watches


class RoleDirector:
    """Implements `RoleOperations`.

    Args:
        fleet: the workers there are.
        orders: carries orders out.
        autopilot: has the controller decide.
        clock: for the time that orders take.
        unix_time: for people.

    Attributes:
        audit: of all orders.
    """

    def __init__(
        self,
        fleet: Fleet,
        orders: RoleOrders,
        autopilot: Autopilot,
        clock: Clock,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        self._fleet = fleet
        self._orders = orders
        self._autopilot = autopilot
        self._clock = clock
        self.audit = AuditLog(unix_time)

    # --- to look at

    @property
    def limits(self) -> Limits:
        """See `RoleOperations.limits`."""
        return self._autopilot.limits

    @property
    def is_auto(self) -> bool:
        """See `RoleOperations.is_auto`."""
        return self._autopilot.is_on

    @property
    def is_leader(self) -> bool:
        """See `RoleOperations.is_leader`."""
        return self._autopilot.is_leader

    def workers(self) -> list[WorkerRole]:
        """See `RoleOperations.workers`."""
        return self._orders.workers()

    def alarms(self) -> list[str]:
        """See `RoleOperations.alarms`."""
        return [*self._orders.alarms(), *self._autopilot.alarms()]

    def changes(self, limit: int = 0) -> Sequence[RoleChange]:
        """See `RoleOperations.changes`."""
        return self._orders.changes(limit)

    def decisions(self, limit: int = 0) -> Sequence[Decision]:
        """See `RoleOperations.decisions`."""
        return self._autopilot.decisions(limit)

    def actions(self, limit: int = 0) -> Sequence[OperatorAction]:
        """See `RoleOperations.actions`."""
        return self.audit.newest(limit)

    # --- to order

    async def set_role(
        self, worker: str, role: Role | None, actor: str, *, epoch: int = 0, incarnation: int = 0
    ) -> AsyncIterator[RoleProgress]:
        """See `RoleOperations.set_role`."""
        action = f"set {worker} {role or 'auto'}"
        with self.audit.refusing(actor, action):
            link = self._link(worker, epoch, incarnation)
            state = link.role_state
            if role is not None:
                self._check_floor(link, role=role)
            answer = self._orders.send(link, actor, f"ordered by {actor}", role=role, is_pinned=role is not None)
        self._note_outcome(actor, action, [answer])
        if role is None or role is state.role:
            await asyncio.shield(answer)
            word = "pinned" if role else "no longer pinned: the controller decides"
            yield RoleProgress(worker, RoleStage.VERIFIED, f"{worker} is {state.role}, {word}", is_last=True)
            return
        yield RoleProgress(worker, RoleStage.ORDERED, f"{worker} has been told to go from {state.role} to {role}")
        await asyncio.shield(answer)
        async for progress in self._watch([worker]):
            yield progress

    async def rebalance(
        self, num_prefill: int, num_decode: int, actor: str, *, is_dry_run: bool = False
    ) -> AsyncIterator[RoleProgress]:
        """See `RoleOperations.rebalance`."""
        dry = " (dry run)" if is_dry_run else ""
        action = f"rebalance to {num_prefill} prefill and {num_decode} decode{dry}"
        answers = []
        with self.audit.refusing(actor, action):
            links = {link.worker.name: link for link in self._fleet.links()}
            members = [Member(name, link.state_to_be, link.assigned_sequences) for name, link in links.items()]
            flips = plan_split(members, num_prefill, num_decode)
            if not is_dry_run:
                self._check_free(links.values())
                reason = f"{num_prefill} prefill and {num_decode} decode, ordered by {actor}"
                roles = {flip.worker: flip.role for flip in flips}
                for name, link in links.items():
                    if not link.role_state.gets_no_work:
                        answers.append(self._orders.send(link, actor, reason, role=roles.get(name), is_pinned=True))
        self._note_outcome(actor, action, answers)
        if is_dry_run:
            for flip in flips:
                was = links[flip.worker].role_state.role
                yield RoleProgress(
                    flip.worker, RoleStage.ORDERED, f"{flip.worker} would go from {was} to {flip.role}"
                )
        if is_dry_run or not flips:
            done = f"{len(flips)} change(s) would do it" if is_dry_run else "all roles stay; every worker is pinned"
            yield RoleProgress("", RoleStage.VERIFIED, done, is_last=True)
            return
        async for progress in self._watch([flip.worker for flip in flips]):
            yield progress

    async def drain(self, worker: str, actor: str) -> AsyncIterator[RoleProgress]:
        """See `RoleOperations.drain`."""
        action = f"drain {worker}"
        with self.audit.refusing(actor, action):
            link = self._link(worker)
            self._check_floor(link, is_cordoned=True)
            answer = self._orders.send(link, actor, f"drained by {actor}", is_cordoned=True)
        self._note_outcome(actor, action, [answer])
        started_s, latest = self._clock.now_s(), -1
        await asyncio.shield(answer)
        while self._is_here(link) and link.role_state.is_cordoned and (num_leaving := self._orders.num_leaving(link)):
            if num_leaving != latest:
                latest = num_leaving
                message = f"{worker} gets no new work; {num_leaving} request(s) are still there"
                elapsed_s = self._clock.now_s() - started_s
                yield RoleProgress(worker, RoleStage.CHANGED, message, num_leaving, elapsed_s)
            await asyncio.sleep(WATCH_S)
        elapsed_s = self._clock.now_s() - started_s
        stage, message = RoleStage.VERIFIED, f"{worker} is drained: nothing of this router is left there"
        if not self._is_here(link):
            stage, message = RoleStage.FAILED, f"{worker} was lost while it was being drained"
        elif not link.role_state.is_cordoned:
            stage, message = RoleStage.FAILED, f"{worker} was let in again while it was being drained"
        yield RoleProgress(worker, stage, message, 0, elapsed_s, is_last=True)

    async def uncordon(self, worker: str, actor: str) -> None:
        """See `RoleOperations.uncordon`."""
        action = f"uncordon {worker}"
        with self.audit.refusing(actor, action):
            answer = self._orders.send(self._link(worker), actor, f"ordered by {actor}", is_cordoned=False)
        self._note_outcome(actor, action, [answer])
        await asyncio.shield(answer)

    async def set_auto(self, actor: str, *, is_auto: bool) -> list[str]:
        """See `RoleOperations.set_auto`."""
        action = f"auto {'on' if is_auto else 'off'}"
        with self.audit.refusing(actor, action):
            await self._autopilot.switch(is_on=is_auto)
        self.audit.note(actor, action, "done")
        return [name for name, state in self._orders.states().items() if state.is_pinned]

    # --- inside

    def _note_outcome(self, actor: str, action: str, answers: Sequence["asyncio.Future[RoleState]"]) -> None:
        """Writes down whether workers have taken what was ordered, when they have answered or will not.

        What becomes of a change then is in the changes.
        """

        def note(answered: "asyncio.Future[list[RoleState | BaseException]]") -> None:
            if answered.cancelled():
                return
            errors = [answer for answer in answered.result() if isinstance(answer, BatonError)]
            words = {True: "refused", False: "failed"}
            outcomes = [f"{words[isinstance(error, StaleEpochError)]}: {error.message}" for error in errors]
            self.audit.note(actor, action, "; ".join(outcomes) or "done")

        asyncio.gather(*answers, return_exceptions=True).add_done_callback(note)

    def _link(self, name: str, epoch: int = 0, incarnation: int = 0) -> WorkerLink:
        """The attached worker of a name.

        Raises:
            InvalidRequestError: there is none; names those there are.
            StaleEpochError: its incarnation or role epoch is another one.
        """
        link = link_named(self._fleet.links(), name)
        if incarnation not in (0, link.worker.incarnation):
            raise StaleEpochError(f"worker {name}@{incarnation} is gone; there is {link.worker} now")
        if epoch not in (0, link.role_state.epoch):
            raise StaleEpochError(
                f"the order is for role epoch {epoch} of worker {name}, which is at {link.role_state.epoch} now"
            )
        return link

    def _is_here(self, link: WorkerLink) -> bool:
        return link in self._fleet.links()

    def _check_floor(self, link: WorkerLink, *, role: Role | None = None, is_cordoned: bool = False) -> None:
        state = link.state_to_be
        after = replace(state, role=role or state.role, is_cordoned=is_cordoned or state.is_cordoned)
        check_floor(self._orders.states(), link.worker.name, after)

    def _check_free(self, links: Iterable[WorkerLink]) -> None:
        for link in links:
            if link.order is not None:
                raise StaleEpochError(f"worker {link.worker} has not answered an order yet; try again")

    async def _watch(self, workers: Sequence[str]) -> AsyncIterator[RoleProgress]:
        """What happens to changes that were just ordered, until each is over or nothing can prove it."""
        followed = {name: self._orders.open_change(name) for name in workers}
        told: dict[str, RoleProgress] = {}
        while True:
            now_s = self._clock.now_s()
            is_done = True
            for name, change in followed.items():
                assert change is not None, f"no change of {name} was ordered"
                progress = progress_of(change, self._orders.num_leaving(change.link), now_s)
                is_done = is_done and is_settled(change, progress.num_leaving, now_s)
                if is_news(told.get(name), progress):
                    yield progress
                told[name] = progress
            if is_done:
                yield summary(list(told.values()))
                return
            await asyncio.sleep(WATCH_S)
