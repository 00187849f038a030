"""Agreement among routers on who decides about roles, and on whether anybody does."""

from core.clock import Clock
from router.roles.leadership import Leadership
from router.roles.shared_switch import SharedSwitch
from router.state.store import StateStore

AUTO = "roles-auto"


class RouterAgreement:
    """Implements `router.roles.autopilot.Leading` over a state store.

    Args:
        store: which all routers share; stays the caller's.
        owner: this router's identity, of this process alone.
        clock: see `Leadership`.
        is_auto: whether the controller decides, until an operator says otherwise at any of the routers.
    """

    def __init__(self, store: StateStore, owner: str, clock: Clock, *, is_auto: bool) -> None:
        self._leadership = Leadership(store, owner, clock)
        self._auto = SharedSwitch(store, AUTO, default=is_auto)

    @property
    def is_leader(self) -> bool:
        """Whether this router's controller is the one that decides, at this moment; see `Leadership`."""
        return self._leadership.is_leader

    @property
    def trouble(self) -> str | None:
        """Why nothing can be agreed on now; None while all is well."""
        return self._leadership.trouble

    @property
    def is_auto(self) -> bool:
        """Whether the controller is to decide, as last heard."""
        return self._auto.is_on

    async def refresh(self) -> None:
        """Asks the store; about once a second. Raises nothing when it is away."""
        await self._leadership.refresh()
        if self.trouble is None:
            await self._auto.refresh()

    async def set_auto(self, *, is_auto: bool) -> None:
        """Has the controller decide, or not, on all routers within a second or so.

        Raises:
            UnavailableError: the store is away.
        """
        await self._auto.set(is_on=is_auto)

    async def resign(self) -> None:
        """Lets another router lead; see `Leadership.resign`."""
        await self._leadership.resign()
