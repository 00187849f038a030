"""Journals in the memory of one process. Not for several routers, and lost with the process."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from core.clock import Clock
from core.deadlines import Deadlines
from router.journal.head import RequestHead
from router.journal.store import (
    ROUTER_LEASE_S,
    Claim,
    Fate,
    KeyHolder,
    RequestUpdate,
    Saved,
    StoredRequest,
)


@dataclass(slots=True)
class _Record:
    head: RequestHead
    holder: str
    term: int
    is_running: bool = True
    is_handed: bool = False  # and not saved since
    num_cached_tokens: int = 0
    token_ids: list[int] = field(default_factory=list)

    def outranks(self, router: str, term: int) -> bool:
        """Whether somebody else's hold is as new as this one, or the same one's is newer."""
        return self.term > term or (self.term == term and self.holder != router)

    def stored(self) -> StoredRequest:
        token_ids = tuple(self.token_ids)
        return StoredRequest(self.head, self.holder, self.term, token_ids, self.num_cached_tokens, self.is_running)


class MemoryJournalStore:
    """A journal store that lives and ends with its process, and is always there. See `JournalStore`.

    Args:
        clock: what is kept, and routers' lives, run out by it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._records: dict[str, _Record] = {}
        self._expiries = Deadlines()
        self._keys: dict[str, str] = {}
        self._key_of: dict[str, str] = {}
        self._alive_until_s: dict[str, float] = {}

    async def save(self, router: str, updates: Sequence[RequestUpdate], dropped: Sequence[str]) -> Saved:
        """See `JournalStore.save`."""
        self._expire()
        lease_was_held = self._is_alive(router)
        self._alive_until_s[router] = self._clock.now_s() + ROUTER_LEASE_S
        for request_id in dropped:
            record = self._records.get(request_id)
            if record is not None and record.holder == router:
                self._forget(request_id)
        fates = tuple(self._update(router, update) for update in updates)
        return Saved(lease_was_held, is_shared=True, fates=fates)

    async def begin(self, router: str, update: RequestUpdate, key: str) -> KeyHolder:
        """See `JournalStore.begin`."""
        self._expire()
        held = self._keys.get(key)
        if held is None:
            held = update.head.request_id
            self._update(router, update)
            self._keys[key], self._key_of[held] = held, key
        return KeyHolder(held, self._records[held].head.fingerprint)

    async def take(self, router: str, claim: Claim, term: int) -> StoredRequest | None:
        """See `JournalStore.take`."""
        self._expire()
        record = self._records.get(claim.request_id)
        if record is None or record.head.request.tenant != claim.tenant:
            return None
        is_busy = record.is_running and record.holder != router and self._is_alive(record.holder)
        if claim.fits(record.head) and (claim.interrupts or not is_busy):
            self._hold(record, router, term)
        return record.stored()

    async def adopt(self, router: str, term: int, limit: int) -> list[StoredRequest]:
        """See `JournalStore.adopt`."""
        self._expire()
        records = self._records.values()
        handed = [each for each in records if each.is_handed and each.holder == router][:limit]
        orphans = [
            each for each in records if each.is_running and each.holder != router and not self._is_alive(each.holder)
        ]
        adopted = orphans[: limit - len(handed)]
        for record in adopted:
            self._hold(record, router, term)
        return [record.stored() for record in (*handed, *adopted)]

    async def leave(self, router: str) -> None:
        """See `JournalStore.leave`."""
        self._alive_until_s.pop(router, None)

    async def close(self) -> None:
        """There is nothing to let go of."""

    def _update(self, router: str, update: RequestUpdate) -> Fate:
        request_id = update.head.request_id
        record = self._records.get(request_id)
        if record is not None and record.outranks(router, update.term):
            return Fate.LOST
        if record is None:
            if not update.is_new:
                return Fate.UNKNOWN
            record = self._records[request_id] = _Record(update.head, router, update.term)
        if update.first > len(record.token_ids):
            return Fate.UNKNOWN
        record.holder, record.term, record.is_running = router, update.term, update.is_running
        record.is_handed = False
        record.num_cached_tokens = update.num_cached_tokens
        record.token_ids += update.token_ids[len(record.token_ids) - update.first :]
        self._expiries.set(request_id, self._clock.now_s() + update.keep_s)
        return Fate.SAVED

    def _hold(self, record: _Record, router: str, term: int) -> None:
        record.holder, record.term, record.is_handed = router, max(term, record.term + 1), True

    def _is_alive(self, router: str) -> bool:
        return self._alive_until_s.get(router, -math.inf) > self._clock.now_s()

    def _expire(self) -> None:
        for request_id in self._expiries.take_due(self._clock.now_s()):
            self._forget(request_id)

    def _forget(self, request_id: str) -> None:
        del self._records[request_id]
        self._expiries.drop(request_id)
        if key := self._key_of.pop(request_id, None):
            del self._keys[key]
