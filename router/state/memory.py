"""The state of a cluster with one router process, in its memory. Not for several: they would not see each other's."""

import itertools
from dataclasses import dataclass

from core.clock import Clock


@dataclass(slots=True)
class _Lease:
    owner: str
    term: str
    until_s: float


class MemoryState:
    """A state store that lives and ends with its process, and is always there.

    Args:
        clock: leases run out by it.
    """

    may_forget = False

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._leases: dict[str, _Lease] = {}
        self._values: dict[str, str] = {}
        self._terms = itertools.count(1)

    async def hold_lease(self, name: str, owner: str, ttl_s: float) -> str | None:
        """Takes or renews a lease; see `StateStore`."""
        now_s = self._clock.now_s()
        lease = self._leases.get(name)
        if lease is None or lease.until_s <= now_s:
            lease = self._leases[name] = _Lease(owner, str(next(self._terms)), now_s)
        if lease.owner != owner:
            return None
        lease.until_s = now_s + ttl_s
        return lease.term

    async def release_lease(self, name: str, owner: str) -> None:
        """Ends a lease of the owner's."""
        lease = self._leases.get(name)
        if lease is not None and lease.owner == owner:
            del self._leases[name]

    async def read(self, key: str) -> str | None:
        """The value of a key."""
        return self._values.get(key)

    async def write(self, key: str, value: str) -> None:
        """Sets the value of a key."""
        self._values[key] = value

    async def close(self) -> None:
        """There is nothing to let go of."""
