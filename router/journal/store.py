"""Where journals are kept, behind one interface. Not what is done with them: that is `router.journal.journal`."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from router.journal.head import RequestHead

# A router that has not been heard of for so long is dead to the others. It says that it lives twice a second, so a
# call that took its whole deadline of a second, and was lost, costs nobody their requests.
ROUTER_LEASE_S = 3.0


@dataclass(frozen=True, slots=True)
class RequestUpdate:
    """What has become of a request that its router holds.

    Attributes:
        head: of the request. A store that has it ignores it.
        is_new: whether the store may not have the request, so that all of it must be sent.
        term: of the holder's hold on it; a higher one takes precedence over whoever else holds it.
        first: position in the answer of the first of `token_ids`; 0 when `is_new`.
        token_ids: of the answer, those after what the store has.
        num_cached_tokens: of the prompt.
        is_running: whether somebody must go on with it when its router dies.
        keep_s: for how long the store keeps it from now on.
    """

    head: RequestHead
    is_new: bool
    term: int
    first: int
    token_ids: tuple[int, ...]
    num_cached_tokens: int
    is_running: bool
    keep_s: float


class Fate(IntEnum):
    """What a store did with an update."""

    SAVED = 0
    LOST = 1
    """Another holder has taken the request over."""
    UNKNOWN = 2
    """The store has lost the request, or part of it; all of it must be sent again."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What became of updates.

    Attributes:
        lease_was_held: whether the router still counted as alive before it said so.
        is_shared: whether all routers of the cluster can see it; else the store that they share is away.
        fates: one for each update.
    """

    lease_was_held: bool
    is_shared: bool
    fates: tuple[Fate, ...]


@dataclass(frozen=True, slots=True)
class StoredRequest:
    """A request as the store has it.

    Attributes:
        head: of the request.
        holder: the router that holds it.
        term: of that hold.
        token_ids: of the answer, as far as they were saved.
        num_cached_tokens: of the prompt.
        was_running: whether somebody worked on it, or was to go on with it, until it was taken.
    """

    head: RequestHead
    holder: str
    term: int
    token_ids: tuple[int, ...]
    num_cached_tokens: int
    was_running: bool


LOOK = "-"
"""The fingerprint of nothing: of claims that are not to have the request."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody wants to have a request.

    Attributes:
        request_id: which.
        tenant: of whoever asks; a request of another one is as unknown.
        fingerprint: of what the client sent; one that differs, as `LOOK` always does, gets to see the request, and
            does not have it. None when nothing was sent to compare.
        interrupts: whether to take it from a router that lives and works on it.
    """

    request_id: str
    tenant: str
    fingerprint: str | None
    interrupts: bool

    def fits(self, head: RequestHead) -> bool:
        """Whether the request may be had by whoever asks."""
        return self.tenant == head.request.tenant and self.fingerprint in (None, head.fingerprint)


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """The request that a key stands for.

    Attributes:
        request_id: which.
        fingerprint: of what its client sent.
    """

    request_id: str
    fingerprint: str


class JournalStore(Protocol):
    """Requests, who holds each, and which routers live. Calls may overlap; each ends within seconds.

    All raise UnavailableError when the store could not be reached in time. Whether it has done then what was asked is
    not known, and asking again does no harm.
    """

    async def save(self, router: str, updates: Sequence[RequestUpdate], dropped: Sequence[str]) -> Saved:
        """Says that a router lives and what became of its requests.

        Args:
            router: who says so; counts as alive for `ROUTER_LEASE_S` from now.
            updates: of requests that it holds.
            dropped: ids of requests that need not be kept any more; those that others hold stay.
        """
        ...

    async def begin(self, router: str, update: RequestUpdate, key: str) -> KeyHolder:
        """Saves a new request under a key, unless the key stands for another one already; returns which it is."""
        ...

    async def take(self, router: str, claim: Claim, term: int) -> StoredRequest | None:
        """Has a router hold a request, in a term of at least `term`; None when there is no such request.

        Somebody else's hold in the answer says that the claim did not go that far (see `Claim`).
        """
        ...

    async def adopt(self, router: str, term: int, limit: int) -> list[StoredRequest]:
        """Has a router hold running requests of dead ones, `limit` at most.

        Those that it was given before, here or by `take`, and has not saved since, come first: the answer may have
        been lost on its way.
        """
        ...

    async def leave(self, router: str) -> None:
        """Ends a router's life at once; what it holds is there for others to adopt."""
        ...

    async def close(self) -> None:
        """Lets go of connections. Raises nothing; no other call follows."""
        ...
