"""Tells the store, again and again, what becomes of this router's requests, and takes over those of dead routers."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable

from core.clock import Clock
from core.errors import RequestMovedError
from router.journal.head_text import TOKEN_CHARS
from router.journal.live_answer import LiveAnswer
from router.journal.shelf import MAX_REQUESTS, Shelf
from router.journal.store import ROUTER_LEASE_S, Fate, JournalStore, RequestUpdate, Saved, StoredRequest

SAVE_S = 0.5  # between two rounds; what was generated since the last one is generated again after a router's death
KEEP_S = 120.0  # for clients that come back for an answer that has ended, or that they left
MAX_ADOPTED = 16  # in one round trip, so that several survivors share what a dead router leaves, and it ends in time
# In one round, of requests that the store does not know, the last one beyond it: milliseconds of a server's time, in
# which nobody else is served. After it was away it has all of them to learn.
MAX_NEW_BYTES = 4 * 1024 * 1024
HEAD_BYTES = 1024  # of a request as text, beside its tokens

logger = logging.getLogger(__name__)


class JournalKeeper:
    """Keeps the books of answers that this router has in hand: live ones, and what the store is still to hear.

    Front ends add and retire answers; one task saves. All that waits when a round begins is saved in one round trip.

    Args:
        store: whose `save` raises nothing.
        router_id: this router's.
        clock: for how long the router has been alive without a break.
        unix_time: seconds since 1970, by which deadlines are kept.
        term: a number above those before it, for what is taken over now.
        adopt: is given the running requests of dead routers.
    """

    def __init__(
        self,
        store: JournalStore,
        router_id: str,
        *,
        clock: Clock,
        unix_time: Callable[[], float],
        term: Callable[[], int],
        adopt: Callable[[StoredRequest], None],
    ) -> None:
        self._store = store
        self._router_id = router_id
        self._clock = clock
        self._unix_time = unix_time
        self._term = term
        self._adopt = adopt
        self._live: dict[str, LiveAnswer] = {}
        self._due: dict[str, LiveAnswer] = {}
        self._being_saved: dict[str, LiveAnswer] = {}  # of those that were due
        self._dropped: list[str] = []
        self._shelf = Shelf()
        self._retired_ids: dict[tuple[str, str], str] = {}  # by tenant and name, of the last that had one
        self._wake = asyncio.Event()
        self._is_shared = True
        self._is_stopped = False
        self._alive_since_s = clock.now_s()

    def live(self, request_id: str) -> LiveAnswer | None:
        """The answer of that request, if this router has it in hand and it can be read."""
        answer = self._live.get(request_id)
        return answer if answer is not None and answer.error is None else None

    def retired(self, request_id: str) -> LiveAnswer | None:
        """An answer that nobody reads and of which the store may not have heard yet."""
        return self._due.get(request_id) or self._being_saved.get(request_id)

    def add(self, answer: LiveAnswer) -> None:
        """This router has it in hand from now on; the store hears so at once, if it does not know the request."""
        self._live[answer.request_id] = answer
        self._shelf.remove(answer.request_id)
        if answer.is_known:
            return
        if self._is_shared:
            answer.saving = asyncio.get_running_loop().create_future()
        self._due[answer.request_id] = answer
        self._wake.set()

    def retire(self, answer: LiveAnswer) -> None:
        """Nobody reads it: ends the work, and has the store keep it for those who come back. Idempotent."""
        answer.stop()
        if self._live.get(answer.request_id) is not answer:
            return
        del self._live[answer.request_id]
        self._due[answer.request_id] = answer
        request = answer.head.request
        if request.name:
            self._retired_ids.pop((request.tenant, request.name), None)
            self._retired_ids[request.tenant, request.name] = request.request_id
            if len(self._retired_ids) > MAX_REQUESTS:
                del self._retired_ids[next(iter(self._retired_ids))]
        num_tokens = len(request.prompt) + len(answer.token_ids)
        for request_id in self._shelf.put(answer.request_id, num_tokens):
            self._due.pop(request_id, None)
            self._dropped.append(request_id)
        self._wake.set()

    def find(self, tenant: str, name: str) -> LiveAnswer | None:
        """A tenant's answer by its request's id or its client's name, live or `retired`."""
        if not name:  # most requests have none
            return None
        for answers in (self._live, self._due, self._being_saved):
            for answer in answers.values():
                request = answer.head.request
                if request.tenant == tenant and name in {request.request_id, request.name} and answer.error is None:
                    return answer
        return None

    def retired_id(self, tenant: str, name: str) -> str:
        """The id of a tenant's request by its client's name, if it was retired here; else what was given."""
        return self._retired_ids.get((tenant, name), name)

    def forget(self, answer: LiveAnswer) -> None:
        """Nobody is to have it again, here or elsewhere."""
        request_id = answer.request_id
        if self._live.get(request_id, answer) is answer:
            self._live.pop(request_id, None)
            self._due.pop(request_id, None)
            self._shelf.remove(request_id)
            self._dropped.append(request_id)
            self._wake.set()

    def update(self, answer: LiveAnswer) -> RequestUpdate:
        """What the store is to know of an answer now."""
        is_running = self._live.get(answer.request_id) is answer and answer.finish_reason is None
        left_s = max(0.0, answer.head.deadline_s - self._unix_time()) if is_running else 0.0
        return answer.update(is_running=is_running, keep_s=left_s + KEEP_S)

    # --- the loop

    async def run(self) -> None:
        """Saves what is new at once, and all that is live every `SAVE_S`, until `stop`."""
        due_s = self._clock.now_s()
        while not self._is_stopped:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, due_s - self._clock.now_s())):
                    await self._wake.wait()
            self._wake.clear()
            is_full = self._clock.now_s() >= due_s
            if is_full:
                due_s = self._clock.now_s() + SAVE_S
            try:
                if not is_full:
                    await self.save_due()
                elif await self.tick():
                    due_s = self._clock.now_s()
            except Exception:
                logger.exception("a defect in the router: requests are not saved in this round")

    def stop(self) -> None:
        """Has `run` return when what it is at is done, which takes seconds at most.

        To cancel it would not do: the client of Redis may swallow that.
        """
        self._is_stopped = True
        self._wake.set()

    async def tick(self) -> bool:
        """Saves everything, and takes over what dead routers have left; returns whether there may be more of that."""
        await self._save({**self._due, **self._live})
        # Right after a pause of the store, or of this process, all others only seem to be dead.
        if self._clock.now_s() - self._alive_since_s < ROUTER_LEASE_S:
            return False
        adopted = await self._store.adopt(self._router_id, self._term(), MAX_ADOPTED)
        for stored in adopted:
            self._adopt(stored)
        return len(adopted) == MAX_ADOPTED

    async def save_due(self) -> None:
        """Saves what has begun or ended since the last time."""
        if self._due or self._dropped:
            await self._save(dict(self._due))

    async def leave(self) -> None:
        """Saves everything a last time, and leaves what runs to other routers. Nothing is added any more."""
        while await self._save({**self._due, **self._live}) and self._is_shared:
            pass
        await self._store.leave(self._router_id)
        await self._store.close()

    async def _save(self, answers: dict[str, LiveAnswer]) -> bool:
        """Returns whether some were put off."""
        chosen, put_off = self._choose(answers.values())
        due, self._due = self._due, {}
        # Those put off that are live are saved in the next full round anyway; but somebody may wait for them.
        self._due = {request_id: due.pop(request_id) for request_id in put_off if request_id in due}
        waiting = [answer.saving for answer in due.values() if answer.saving is not None]
        self._being_saved = due
        dropped, self._dropped = self._dropped, []
        updates = [self.update(answer) for answer in chosen]
        try:
            saved = await self._store.save(self._router_id, updates, dropped)
        finally:
            self._being_saved = {}
            _set_all(waiting)
        self._note(saved)
        for answer, update, fate in zip(chosen, updates, saved.fates, strict=True):
            self._settle(answer, update, fate)
        return bool(put_off)

    def _choose(self, answers: Iterable[LiveAnswer]) -> tuple[list[LiveAnswer], list[str]]:
        """What a round saves, running ones first, and the ids of those that are put off to later ones."""
        chosen: list[LiveAnswer] = []
        put_off: list[str] = []
        num_new_bytes = 0
        for answer in sorted(answers, key=lambda each: each.request_id not in self._live):
            if not answer.is_known and num_new_bytes >= MAX_NEW_BYTES:
                put_off.append(answer.request_id)
                continue
            if not answer.is_known:
                num_tokens = len(answer.head.request.prompt) + len(answer.token_ids)
                num_new_bytes += HEAD_BYTES + TOKEN_CHARS * num_tokens
            chosen.append(answer)
        return chosen, put_off

    def _note(self, saved: Saved) -> None:
        self._is_shared = saved.is_shared
        if not (saved.is_shared and saved.lease_was_held):
            self._alive_since_s = self._clock.now_s()

    def _settle(self, answer: LiveAnswer, update: RequestUpdate, fate: Fate) -> None:
        if fate is Fate.LOST:
            self._lose(answer)
            return
        answer.is_known = fate is Fate.SAVED
        answer.num_saved = update.first + len(update.token_ids)
        is_unheard = fate is Fate.UNKNOWN or not self._is_shared
        # Those that are live, and so not on the shelf, are saved in every round anyway.
        if is_unheard and answer.request_id in self._shelf:
            self._due.setdefault(answer.request_id, answer)

    def _lose(self, answer: LiveAnswer) -> None:
        self._shelf.remove(answer.request_id)
        if self._live.get(answer.request_id) is answer:
            del self._live[answer.request_id]
            logger.info("another router goes on with request %s", answer.request_id)
        answer.fail(
            RequestMovedError(f"another router goes on with request {answer.request_id}; reconnect to have the rest")
        )


def _set_all(futures: Iterable["asyncio.Future[None]"]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
