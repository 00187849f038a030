"""Journals in a Redis server, for several routers. What the server does is in `redis_scripts`."""

import logging
from collections.abc import Sequence
from typing import Any

from router.journal.head_text import head_from_text, head_to_text, tokens_from_text, tokens_to_text
from router.journal.redis_scripts import ADOPT, BEGIN, LEAVE, REFUSE, SAVE, TAKE
from router.journal.store import (
    ROUTER_LEASE_S,
    Claim,
    Fate,
    KeyHolder,
    RequestUpdate,
    Saved,
    StoredRequest,
)
from router.state.address import RedisAddress
from router.state.redis_connection import PREFIX, RedisConnection

KEYS = (f"{PREFIX}journal:",)
MS_PER_S = 1000

logger = logging.getLogger(__name__)


class RedisJournalStore:
    """A journal store in one database of a Redis server. Each call is one round trip. See `JournalStore`.

    Args:
        address: which server and database; keys begin with `baton:journal:`.
    """

    def __init__(self, address: RedisAddress) -> None:
        self._redis = RedisConnection(address)

    async def save(self, router: str, updates: Sequence[RequestUpdate], dropped: Sequence[str]) -> Saved:
        """See `JournalStore.save`."""
        words = [word for update in updates for word in _words(update)]
        lease_ms = round(ROUTER_LEASE_S * MS_PER_S)
        was_held, *fates = await self._redis.run(SAVE, KEYS, router, lease_ms, len(dropped), *dropped, *words)
        return Saved(bool(was_held), is_shared=True, fates=tuple(map(Fate, fates)))

    async def begin(self, router: str, update: RequestUpdate, key: str) -> KeyHolder:
        """See `JournalStore.begin`."""
        held = await self._redis.run(BEGIN, KEYS, router, key, *_words(update))
        request_id, _, fingerprint = held.partition(" ")
        return KeyHolder(request_id, fingerprint)

    async def take(self, router: str, claim: Claim, term: int) -> StoredRequest | None:
        """See `JournalStore.take`."""
        words = (claim.request_id, claim.tenant, claim.fingerprint or "", int(claim.interrupts), term)
        answer = await self._redis.run(TAKE, KEYS, router, *words)
        return None if answer is None else _stored(answer)

    async def adopt(self, router: str, term: int, limit: int) -> list[StoredRequest]:
        """See `JournalStore.adopt`."""
        answers = await self._redis.run(ADOPT, KEYS, router, term, limit)
        requests = [_stored(answer) for answer in answers]
        if None in requests:  # else they would be the first again and again
            unreadable = [answer[-1] for answer, each in zip(answers, requests, strict=True) if each is None]
            await self._redis.run(REFUSE, KEYS, router, *unreadable)
        return [each for each in requests if each is not None]

    async def leave(self, router: str) -> None:
        """See `JournalStore.leave`."""
        await self._redis.run(LEAVE, KEYS, router)

    async def close(self) -> None:
        """Closes the connections."""
        await self._redis.close()


def _words(update: RequestUpdate) -> tuple[str | int, ...]:
    head, request = update.head, update.head.request
    return (
        request.request_id,
        update.term,
        head_to_text(head) if update.is_new else "",
        request.tenant,
        head.fingerprint,
        int(update.is_running),
        max(1, round(update.keep_s * MS_PER_S)),
        update.num_cached_tokens,
        update.first,
        tokens_to_text(update.token_ids),
    )


def _stored(answer: list[Any]) -> StoredRequest | None:
    """None when the record is not one of this version, which is as if it were lost."""
    text, holder, term, num_cached_tokens, running, tokens, _ = answer
    head = head_from_text(text or "")
    if head is None:
        logger.warning("a request in the state store cannot be read; does another version of Baton use it?")
        return None
    token_ids = tokens_from_text(tokens)
    return StoredRequest(head, holder, int(term), token_ids, int(num_cached_tokens), was_running=running == "1")
