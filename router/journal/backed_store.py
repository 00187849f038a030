"""A journal store that all routers share, with this router's memory behind it for when that is away."""

import logging
from collections.abc import Awaitable, Sequence
from typing import TypeVar

from core.errors import UnavailableError
from router.journal.memory_store import MemoryJournalStore
from router.journal.store import Claim, Fate, JournalStore, KeyHolder, RequestUpdate, Saved, StoredRequest

T = TypeVar("T")

logger = logging.getLogger(__name__)


class BackedJournalStore:
    """Keeps this router's requests in memory and in a shared store. See `JournalStore`.

    After a failure of the shared store only `save` asks it, which nobody's request waits for, until it answers.
    Meanwhile this router knows its own requests, and lives as if alone: what other routers hold is unavailable, and a
    key protects from computing twice on this router only. `save` raises nothing.

    Args:
        shared: which all routers see.
        memory: of this router.
    """

    def __init__(self, shared: JournalStore, memory: MemoryJournalStore) -> None:
        self._shared = shared
        self._memory = memory
        self._is_away = False

    async def save(self, router: str, updates: Sequence[RequestUpdate], dropped: Sequence[str]) -> Saved:
        """See `JournalStore.save`."""
        here = await self._memory.save(router, updates, dropped)
        there = await self._asking(self._shared.save(router, updates, dropped))
        if there is None:
            return Saved(lease_was_held=False, is_shared=False, fates=here.fates)
        lost = [each.head.request_id for each, fate in zip(updates, there.fates, strict=True) if fate is Fate.LOST]
        if lost:
            await self._memory.save(router, (), lost)
        fates = (
            Fate.UNKNOWN if near is Fate.UNKNOWN and far is Fate.SAVED else far
            for near, far in zip(here.fates, there.fates, strict=True)
        )
        return Saved(there.lease_was_held, is_shared=True, fates=tuple(fates))

    async def begin(self, router: str, update: RequestUpdate, key: str) -> KeyHolder:
        """See `JournalStore.begin`."""
        here = await self._memory.begin(router, update, key)
        if here.request_id != update.head.request_id or self._is_away:
            return here
        there = await self._asking(self._shared.begin(router, update, key))
        if there is None or there == here:
            return here
        await self._memory.save(router, (), [here.request_id])
        return there

    async def take(self, router: str, claim: Claim, term: int) -> StoredRequest | None:
        """See `JournalStore.take`; what the shared store has lost may still be in memory.

        Raises:
            UnavailableError: the shared store is away and this router does not know the request.
        """
        taken = None if self._is_away else await self._asking(self._shared.take(router, claim, term))
        taken = taken or await self._memory.take(router, claim, term)
        if taken is None and self._is_away:
            raise UnavailableError(
                f"request {claim.request_id} may be another router's, and the state store that could tell is away; "
                "try again"
            )
        return taken

    async def adopt(self, router: str, term: int, limit: int) -> list[StoredRequest]:
        """See `JournalStore.adopt`."""
        return [] if self._is_away else await self._asking(self._shared.adopt(router, term, limit)) or []

    async def leave(self, router: str) -> None:
        """See `JournalStore.leave`."""
        await self._asking(self._shared.leave(router))

    async def close(self) -> None:
        """Closes the shared store."""
        await self._shared.close()

    async def _asking(self, call: Awaitable[T]) -> T | None:
        """What the shared store answers; None when it does not."""
        try:
            answer = await call
        except UnavailableError as error:
            if not self._is_away:
                logger.warning("requests are kept in this router's memory alone for now: %s", error.message)
            self._is_away = True
            return None
        if self._is_away:
            logger.info("requests are kept in the state store again")
        self._is_away = False
        return answer
