"""Sends workers orders that change what they are for, and follows each change until it is proven or has failed.

Runs on the event loop. What a change does to requests is the dispatcher's; what it does to a worker, the worker's.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Sequence

from core.clock import Clock
from core.errors import DeadlineError, StaleEpochError, UnavailableError
from core.request import Role
from core.roles import RoleOrder, RoleRefusal, RoleState
from router import wire
from router.dispatch.movements import Movements
from router.fleet.fleet import Fleet
from router.fleet.link import WorkerLink
from router.roles.changes import CONTROLLER, RoleChange, RoleStage, WorkerRole
from router.roles.open_change import ANSWER_TIMEOUT_S, OpenChange, Sent
from router.roles.role_log import Latest

logger = logging.getLogger(__name__)


class RoleOrders:
    """Also hears what the fleet says (`FleetObserver`).

    A worker that restarts comes back in the role it was started in; it is ordered to be what its predecessor was.

    Args:
        movements: says which requests are to leave a worker.
        clock: for ages and deadlines.
        unix_time: for people.
    """

    def __init__(self, movements: Movements, clock: Clock, unix_time: Callable[[], float] = time.time) -> None:
        self._bound: Fleet | None = None
        self._movements = movements
        self._clock = clock
        self._unix_time = unix_time
        self._sent: dict[str, Sent] = {}  # not answered, by order id
        self._open: dict[str, OpenChange] = {}  # by worker's name: its latest change
        self._ended: Latest[RoleChange] = Latest()
        self._since_s: dict[str, float] = {}
        self._latest: dict[str, tuple[WorkerLink, RoleState]] = {}  # by name, what each was last heard to be

    def bind(self, fleet: Fleet) -> None:
        """Says which fleet; once, before it is running."""
        self._bound = fleet

    @property
    def _fleet(self) -> Fleet:
        assert self._bound is not None, "bind() comes before the first worker"
        return self._bound

    # --- to look at

    def states(self) -> dict[str, RoleState]:
        """What attached workers are for by name, or have been ordered to be."""
        return {link.worker.name: link.state_to_be for link in self._fleet.links()}

    def since_s(self, link: WorkerLink) -> float:
        """When a worker took its role, on the clock."""
        return self._since_s.get(link.worker.name, 0.0)

    def num_leaving(self, link: WorkerLink) -> int:
        """Requests that have no place in a worker's role any more."""
        return len(self._movements.leaving(link))

    def change_of(self, worker: str) -> RoleChange | None:
        """A worker's latest change."""
        change = self._open.get(worker)
        return change.change if change else None

    def open_change(self, worker: str) -> OpenChange | None:
        """The same, to follow."""
        return self._open.get(worker)

    def changes(self, limit: int = 0) -> Sequence[RoleChange]:
        """The latest, newest first; 0 for all that are kept."""
        under_way = [each.change for each in self._open.values() if not each.is_over]
        both = sorted((*under_way, *self._ended.newest()), key=lambda change: change.ordered_at, reverse=True)
        return both[: limit or None]

    def alarms(self) -> list[str]:
        """Attached workers that have not answered, or have not done what they are for now, and still do not."""
        attached = set(self._fleet.links())
        alarming = (each for each in self._open.values() if each.is_alarming and each.link in attached)
        return [f"worker {each.change.worker}: {each.change.message}" for each in alarming]

    def workers(self) -> list[WorkerRole]:
        """Attached workers, ordered by name."""
        now_s, num_leaving = self._clock.now_s(), self._movements.count_leaving()
        return [
            WorkerRole(
                worker=link.worker,
                state=link.role_state,
                since_s=now_s - self.since_s(link),
                last_change=self.change_of(link.worker.name),
                queued_prompts=link.load.queued_prompts,
                running_sequences=link.load.running_sequences,
                num_leaving=num_leaving[link],
            )
            for link in self._fleet.links()
        ]

    # --- to order

    def send(
        self,
        link: WorkerLink,
        actor: str,
        reason: str,
        *,
        role: Role | None = None,
        is_cordoned: bool | None = None,
        is_pinned: bool | None = None,
    ) -> "asyncio.Future[RoleState]":
        """Orders a worker to be for something else; what is None stays.

        Returns:
            The state that it leads to; or StaleEpochError when the worker refuses, UnavailableError when it is lost,
            DeadlineError when it does not answer.

        Raises:
            StaleEpochError: another order for this worker has not been answered; nothing was sent.
        """
        if link.order is not None:
            raise StaleEpochError(
                f"worker {link.worker} has not answered an order yet that makes it {link.order.role}; try again"
            )
        state, now_s = link.role_state, self._clock.now_s()
        order = RoleOrder(
            order_id=uuid.uuid4().hex,
            role=state.role if role is None else role,
            epoch=state.epoch,
            is_cordoned=state.is_cordoned if is_cordoned is None else is_cordoned,
            is_pinned=state.is_pinned if is_pinned is None else is_pinned,
            revision=state.revision,
        )
        sent = self._sent[order.order_id] = Sent(link, order, now_s)
        if order.role is not state.role:
            self._begin(sent, actor, reason)
        link.set_role(order)
        return sent.answer

    def tick(self) -> None:
        """Ends what has waited too long; a few times a second."""
        now_s = self._clock.now_s()
        for sent in [each for each in self._sent.values() if now_s - each.sent_s >= ANSWER_TIMEOUT_S]:
            message = f"worker {sent.link.worker} has not answered within {ANSWER_TIMEOUT_S:g} s"
            self._settle(sent, DeadlineError(message))
        for change in self._open.values():
            if not change.is_over:
                self._look_at(change)
                change.expire(now_s)
                self._keep_if_over(change)

    # --- from the fleet (FleetObserver)

    def on_attached(self, link: WorkerLink) -> None:
        """Has a restarted worker be what it was before."""
        name, now_s = link.worker.name, self._clock.now_s()
        before = self._latest.get(name)
        self._latest[name] = link, link.role_state
        self._since_s[name] = now_s
        if before is None or before[0].worker == link.worker:
            return
        old, new = before[1], link.role_state
        if (old.role, old.is_cordoned, old.is_pinned) != (new.role, new.is_cordoned, new.is_pinned):
            reason = f"it was {old.role} before it restarted"
            self.send(link, CONTROLLER, reason, role=old.role, is_cordoned=old.is_cordoned, is_pinned=old.is_pinned)

    def on_role_state(self, link: WorkerLink, before: RoleState) -> None:
        """A worker is for something else now, by this router's order or another's."""
        name, state, now_s = link.worker.name, link.role_state, self._clock.now_s()
        self._latest[name] = link, state
        if state.role is not before.role:
            self._since_s[name] = now_s
            if (change := self._open.get(name)) is not None and change.order.order_id == state.order_id:
                change.on_changed(now_s)
        if sent := self._sent.get(state.order_id):
            self._settle(sent, None)

    def on_role_refusal(self, link: WorkerLink, refusal: RoleRefusal) -> None:
        """A worker has not taken an order."""
        if sent := self._sent.get(refusal.order_id):
            self._settle(sent, StaleEpochError(f"worker {link.worker} refuses: {refusal.message}"))

    def on_report(self, link: WorkerLink, report: wire.StepReport) -> None:  # noqa: ARG002 - the link has its load
        """Looks at what the worker has executed."""
        change = self._open.get(link.worker.name)
        if change is not None and change.link is link and not change.is_over:
            self._look_at(change)
            self._keep_if_over(change)

    def on_lost(self, link: WorkerLink) -> None:
        """What was ordered of a lost worker has failed."""
        for sent in [each for each in self._sent.values() if each.link is link]:
            self._settle(sent, UnavailableError(f"worker {link.worker} was lost before it had answered"))
        change = self._open.get(link.worker.name)
        if change is not None and change.link is link and not change.is_over:
            change.fail("the worker was lost")
            self._keep_if_over(change)

    # --- inside

    def _begin(self, sent: Sent, actor: str, reason: str) -> None:
        """Follows an order that changes a role."""
        link, order, before = sent.link, sent.order, sent.link.role_state.role
        change = RoleChange(
            order.order_id, link.worker, before, order.role, RoleStage.ORDERED, actor, reason,
            ordered_at=self._unix_time(),
        )  # fmt: skip
        self._end(link.worker.name)
        self._open[link.worker.name] = OpenChange(link, order, change, sent.sent_s)
        logger.info("worker %s: %s -> %s, by %s: %s", link.worker, before, order.role, actor, reason)

    def _settle(self, sent: Sent, error: StaleEpochError | DeadlineError | UnavailableError | None) -> None:
        """An order is answered, or will not be."""
        del self._sent[sent.order.order_id]
        if error is None:
            sent.answer.set_result(sent.link.role_state)
            return
        if sent.link.order is sent.order:
            sent.link.order = None
        sent.answer.set_exception(error)
        sent.answer.exception()  # whoever ordered it may not be waiting any more
        change = self._open.get(sent.link.worker.name)
        if change is not None and change.order is sent.order and not change.is_over:
            change.fail(error.message, is_alarm=isinstance(error, DeadlineError))
            self._keep_if_over(change)

    def _look_at(self, change: OpenChange) -> None:
        link = change.link
        now = (link.num_migrated, link.num_returned, link.num_finished)
        change.count(*(after - before for after, before in zip(now, change.counts_before, strict=True)))
        change.on_load(link.load, self.num_leaving(link), self._clock.now_s())

    def _keep_if_over(self, change: OpenChange) -> None:
        if change.is_over:
            self._ended.add(change.change)
            log = logger.warning if change.change.stage is RoleStage.FAILED else logger.info
            log("worker %s: %s %s", change.change.worker, change.change.stage, change.change.message)

    def _end(self, worker: str) -> None:
        """The next change of a worker begins: the one before is not proven any more."""
        change = self._open.pop(worker, None)
        if change is not None and not change.is_over:
            change.fail("another change came before it was proven")
            self._ended.add(change.change)
