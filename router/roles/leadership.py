"""Which of several routers decides about roles. Not what it decides, and not when it is asked: it has no task."""

import logging
import math

from core.clock import Clock
from core.errors import UnavailableError
from router.state.store import StateStore

LEASE = "roles"
# Outlasts a refresh that fails at its deadline and several that fail at once; a dead leader's is over soon.
LEASE_S = 5.0
# Of a lease's end that its owner does not use: an order given in the last moment arrives before somebody else's
# first, and clocks of two machines may differ by a tenth in speed, far more than they do.
MARGIN_S = 0.5

logger = logging.getLogger(__name__)


class Leadership:
    """Whether this router leads. At most one of the routers of a store does, at any time.

    What a router may rely on is the lease that was confirmed last, counted from before it asked: however long the
    answer took, or this process stood still, the lease in the store ends later. A store that may forget could give
    the lease to a second router while the first still relies on it. There, who has taken it leads only after as long
    as any earlier confirmation can last, and only if its term is still the same then: a store that has forgotten the
    owner costs time and never makes two leaders.

    `is_leader` holds for the moment it is asked: ask right before each order, not before an await. What is sent late
    all the same is fenced by the role epoch that it names. While the store is away, a leader is one until its lease
    ends, and then there is none.

    Args:
        store: which all routers share.
        owner: this router's identity, of this process alone.
        clock: this process's; it must count time in which the process stood still.
    """

    def __init__(self, store: StateStore, owner: str, clock: Clock) -> None:
        self._store = store
        self._owner = owner
        self._clock = clock
        self._term: str | None = None
        self._from_s = math.inf
        self._until_s = -math.inf
        self._trouble: str | None = None
        self._has_led = False

    @property
    def is_leader(self) -> bool:
        """Whether this router decides, now."""
        return self._from_s <= self._clock.now_s() < self._until_s

    @property
    def trouble(self) -> str | None:
        """Why the store could not be asked the last time; None when it could."""
        return self._trouble

    async def refresh(self) -> None:
        """Asks for the lease or renews it; to be called about once a second, and not twice at a time."""
        asked_s = self._clock.now_s()
        try:
            term = await self._store.hold_lease(LEASE, self._owner, LEASE_S)
        except UnavailableError as error:
            self._note_trouble(error.message)
        else:
            self._note_trouble(None)
            self._take(term, asked_s)
        self._note_change()

    async def resign(self) -> None:
        """Leads no more from now on, and lets others; when the store is away, they wait for the lease to end.

        Not while `refresh` is under way.
        """
        self._drop()
        self._note_change()
        try:
            await self._store.release_lease(LEASE, self._owner)
        except UnavailableError as error:
            logger.warning("the lease on roles is left to run out: %s", error.message)

    def _take(self, term: str | None, asked_s: float) -> None:
        if term is None:
            self._drop()
            return
        if term != self._term:
            self._term = term
            self._from_s = self._clock.now_s() + (LEASE_S if self._store.may_forget else 0.0)
        self._until_s = asked_s + LEASE_S - MARGIN_S

    def _drop(self) -> None:
        self._term, self._from_s, self._until_s = None, math.inf, -math.inf

    def _note_trouble(self, trouble: str | None) -> None:
        if trouble is not None and self._trouble is None:
            logger.warning("who decides about roles cannot be agreed on: %s", trouble)
        self._trouble = trouble

    def _note_change(self) -> None:
        if self.is_leader != self._has_led:
            self._has_led = not self._has_led
            logger.info("this router %s about roles", "decides" if self._has_led else "no longer decides")
