"""What routers agree on, behind one interface. Not for tokens, prompts or anything else on the path of a request."""

from typing import Protocol


class StateStore(Protocol):
    """Leases and small values that all routers of a cluster see. Calls may overlap.

    Every call ends within seconds, and raises UnavailableError with the store's address when the store could not be
    reached in time. Whether the store has done then what was asked is not known.

    Attributes:
        may_forget: whether the store can lose what it holds while routers live, by a restart or an operator's hand:
            that nobody holds a lease here does not prove then that nobody relies on having it.
    """

    may_forget: bool

    async def hold_lease(self, name: str, owner: str, ttl_s: float) -> str | None:
        """Takes a lease that nobody has, or renews the caller's own.

        Args:
            name: which lease.
            owner: who asks; unique among all processes there ever are.
            ttl_s: how long it lasts from now on, seconds above 0.

        Returns:
            The term: the same as long as the owner has had the lease without a break, and another one each time it
            is taken. None when somebody else has it.
        """
        ...

    async def release_lease(self, name: str, owner: str) -> None:
        """Ends a lease; one that the owner does not have is left alone."""
        ...

    async def read(self, key: str) -> str | None:
        """The value of a key; None when there is none."""
        ...

    async def write(self, key: str, value: str) -> None:
        """Gives a key a value, which stays until the store forgets it."""
        ...

    async def close(self) -> None:
        """Lets go of connections; leases are left to run out. Raises nothing; no other call follows."""
        ...
