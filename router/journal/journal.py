"""Answers that outlive their client's connection and their router. What is kept where: `router.journal.store`."""

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace

from core.clock import Clock
from core.errors import (
    BatonError,
    CancelledRequestError,
    DeadlineError,
    InvalidRequestError,
    KeyConflictError,
    RequestMovedError,
    UnavailableError,
    UnknownRequestError,
)
from router.generation import Dispatcher, Generation
from router.journal.head import RequestHead
from router.journal.keeper import JournalKeeper
from router.journal.live_answer import AnswerReader, LiveAnswer, OnLeft
from router.journal.store import LOOK, Claim, JournalStore, KeyHolder, StoredRequest
from router.state.redis_connection import CALL_DEADLINE_S
from router.text.stream import TextGeneration
from router.text.tokenizer import TextCodec

JOIN_POLL_S = 0.5  # another router saves as often
MS_PER_S = 1000

CheckHead = Callable[[RequestHead], None]
"""Raises BatonError when whoever asks for a request's answer cannot be given it."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OpenAnswer:
    """An answer to be read.

    Attributes:
        head: of its request, as it was first sent.
        text: the answer from its beginning; whoever has it reads it to its end or cancels it.
    """

    head: RequestHead
    text: TextGeneration


class Journal:
    """Has requests answered so that their answers can be had again, from this router or another one of the cluster.

    An answer that nobody reads ends its work at once, and what there is of it is kept for two minutes: whoever asks
    again has the tokens so far, and the rest generated. Since sampling is keyed by (seed, position), it is the very
    answer that it would have been. With an idempotency key the work goes on without readers.

    Args:
        store: where requests are kept; the journal closes it.
        router_id: this router's, of this process alone.
        dispatcher: has tokens generated.
        codec: the model's tokenizer.
        clock: monotonic.
        unix_time: seconds since 1970. Deadlines of requests that change routers are by this clock.
    """

    def __init__(
        self,
        store: JournalStore,
        router_id: str,
        *,
        dispatcher: Dispatcher,
        codec: TextCodec,
        clock: Clock,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._router_id = router_id
        self._dispatcher = dispatcher
        self._codec = codec
        self._unix_time = unix_time
        self.keeper = JournalKeeper(
            store, router_id, clock=clock, unix_time=unix_time, term=self._term, adopt=self._adopt
        )
        self._running_out: set[asyncio.Task[None]] = set()
        self._is_leaving = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While the context lasts, requests are saved; then those that run are left to other routers."""
        await self.keeper.tick()  # other routers must not take it for dead when its first request comes
        keeping = asyncio.create_task(self.keeper.run())
        try:
            yield
        finally:
            self.prepare_to_leave()
            self.keeper.stop()
            for task in self._running_out:
                task.cancel()
            await asyncio.gather(keeping, *self._running_out, return_exceptions=True)
            await self.keeper.leave()

    def prepare_to_leave(self) -> None:
        """From now on an answer whose reader stops is left for another router to go on with. Idempotent."""
        self._is_leaving = True

    async def start(self, head: RequestHead) -> OpenAnswer:
        """Has a new request answered. Waits for nothing: the store is told meanwhile.

        Raises:
            BatonError: it cannot be accepted.
        """
        answer = LiveAnswer(head, self._term(), self._submit_first)
        answer.start()
        self.keeper.add(answer)
        return self._open(answer)

    async def start_once(self, head: RequestHead, key: str, *, interrupts: bool) -> OpenAnswer:
        """Has a request answered unless its tenant's key stands for one already, whose answer is returned then.

        Args:
            head: of the new request.
            key: the client's.
            interrupts: whether to take an earlier request from a router that works on it; else the answer is
                returned when that one is done.

        Raises:
            KeyConflictError: the key stands for a request that differs.
            BatonError: the new request cannot be accepted, or the earlier one is not to be had.
        """
        answer = LiveAnswer(replace(head, is_kept=True), self._term(), self._submit_first)
        holder = await self._begin(answer, _digest(head.request.tenant, key))
        if holder.fingerprint != head.fingerprint:
            raise KeyConflictError(
                f"the idempotency key stands for another request, {holder.request_id}; send that one, or another key",
                param="Idempotency-Key",
            )
        if holder.request_id != head.request_id:
            tenant, fingerprint = head.request.tenant, head.fingerprint
            return await self.resume(holder.request_id, tenant, fingerprint=fingerprint, interrupts=interrupts)
        try:
            answer.start()
        except BatonError:
            self._forget_unread(answer)  # whoever sends it again has the time of a new request
            raise
        return self._open(answer)

    async def _begin(self, answer: LiveAnswer, key: str) -> KeyHolder:
        """What the key stands for; the answer is live if that is its request."""
        # Live before the store hears of it: who finds it there and asks this router gets this very answer.
        answer.is_known = True
        self.keeper.add(answer)
        holder = None
        try:
            update = self.keeper.update(answer)
            holder = await self._store.begin(self._router_id, replace(update, is_new=True, first=0), key)
        finally:
            if holder is None:
                self._forget_unread(answer)
            elif holder.request_id != answer.request_id:
                message = f"request {holder.request_id} has the same idempotency key, and came first; ask again"
                answer.fail(RequestMovedError(message))  # whoever found this one meanwhile must not have it computed
                self.keeper.forget(answer)
        return holder

    def _forget_unread(self, answer: LiveAnswer) -> None:
        """Forgets it, unless somebody who asked with the same key reads it by now."""
        if not answer.is_read:
            self.keeper.forget(answer)

    async def resume(
        self,
        request_id: str,
        tenant: str,
        *,
        fingerprint: str | None = None,
        num_tokens: int = 0,
        interrupts: bool = True,
        check: CheckHead | None = None,
    ) -> OpenAnswer:
        """The answer to an earlier request, wherever it is.

        Args:
            request_id: which.
            tenant: of whoever asks.
            fingerprint: of what the client sent now; None when it sent nothing to compare.
            num_tokens: tokens after which a delta of the answer is to end.
            interrupts: see `start_once`.
            check: is given the request before it is taken from anybody.

        Raises:
            BatonError: `check` did.
            UnknownRequestError: there is no such request of that tenant.
            InvalidRequestError: the client sent something else the first time.
            UnavailableError: the state store is away, and this router alone does not know.
            DeadlineError: the request's time has passed while another router worked on it.
        """
        claim = Claim(request_id, tenant, fingerprint, interrupts)
        while True:
            answer = self.keeper.live(request_id) or self._again(claim, check) or await self._take(claim, check)
            head = answer.head
            if head.request.tenant != tenant:
                raise _unknown(request_id)
            if fingerprint not in (None, head.fingerprint):
                raise InvalidRequestError(
                    f"request {request_id} was another one; send the very same body, or GET it", param="Last-Event-ID"
                )
            if check is not None:
                check(head)
            if self.keeper.live(request_id) is answer:
                return self._open(answer, num_tokens)
            if head.deadline_s < self._unix_time():
                raise _late(head)
            await asyncio.sleep(JOIN_POLL_S)

    def _again(self, claim: Claim, check: CheckHead | None) -> LiveAnswer | None:
        """A request that was retired here a moment ago."""
        retired = self.keeper.retired(claim.request_id)
        if retired is None or not claim.fits(retired.head):
            return None
        if check is not None:
            check(retired.head)
        answer = retired.again(self._term(), self._submit_again)
        self.keeper.add(answer)
        return answer

    async def _take(self, claim: Claim, check: CheckHead | None) -> LiveAnswer:
        """The request as the store has it, live if it is this router's now."""
        if check is not None:
            check((await self._stored(replace(claim, fingerprint=LOOK))).head)
        stored = await self._stored(claim)
        live = self.keeper.live(claim.request_id)
        is_ours = stored.holder == self._router_id
        if live is not None:  # somebody else here was faster
            live.term = max(live.term, stored.term) if is_ours else live.term
            return live
        answer = LiveAnswer.of(stored, self._submit_again)
        if is_ours:
            self.keeper.add(answer)
        return answer

    async def _stored(self, claim: Claim) -> StoredRequest:
        stored = await self._store.take(self._router_id, claim, self._term())
        if stored is None:
            raise _unknown(claim.request_id)
        return stored

    def _adopt(self, stored: StoredRequest) -> None:
        request_id = stored.head.request_id
        if self.keeper.live(request_id) or self.keeper.retired(request_id):
            return  # it was asked for here meanwhile
        logger.info("request %s goes on here: its router is gone", request_id)
        answer = LiveAnswer.of(stored, self._submit_again)
        self.keeper.add(answer)
        self._run_out(answer)

    async def abort(self, request_id: str, tenant: str) -> None:
        """Ends a tenant's request, which is forgotten; by its id, or its client's name for it.

        Also when it has ended or its client has left it: by its id wherever that was, by its name if it was here.

        Raises:
            UnknownRequestError: the tenant has no such request, or another router works on it.
        """
        answer = self.keeper.find(tenant, request_id)
        answer = answer or await self._left(self.keeper.retired_id(tenant, request_id), tenant)
        if answer is None:
            self._dispatcher.abort(request_id, tenant)
            return
        answer.fail(CancelledRequestError(f"request {request_id} was aborted, as asked"))
        self.keeper.forget(answer)

    async def _left(self, request_id: str, tenant: str) -> LiveAnswer | None:
        """A request that no router works on, as this router's; None when there is none."""
        try:
            answer = await self._take(Claim(request_id, tenant, None, interrupts=False), None)
        except (UnknownRequestError, UnavailableError):
            return None
        return answer if self.keeper.live(request_id) is answer else None

    # --- readers come and go

    def _open(self, answer: LiveAnswer, num_tokens: int = 0) -> OpenAnswer:
        return OpenAnswer(answer.head, self._text(answer, num_tokens, self._on_left))

    def _text(self, answer: LiveAnswer, cut: int, on_cancel: OnLeft) -> TextGeneration:
        request = answer.head.request
        return TextGeneration(
            AnswerReader(answer, cut, on_cancel, CALL_DEADLINE_S),
            self._codec.detokenizer(),
            stops=answer.head.stops,
            stop_token_ids=request.stop_token_ids,
            min_tokens=request.sampling.min_tokens,
        )

    def _on_left(self, answer: LiveAnswer, is_answered: bool) -> None:
        is_wanted = answer.head.is_kept and answer.is_open and not is_answered
        if is_wanted and not answer.is_read and not self._is_leaving:
            self._run_out(answer)
        else:
            self._on_ran_out(answer, is_answered)

    def _on_ran_out(self, answer: LiveAnswer, is_answered: bool) -> None:
        if answer.is_read:
            return
        answer.stop(is_answered=is_answered)
        if is_answered or not self._is_leaving:
            self.keeper.retire(answer)

    def _run_out(self, answer: LiveAnswer) -> None:
        """Has it generated to its end, whoever reads it."""
        task = asyncio.create_task(self._read_out(answer))
        self._running_out.add(task)
        task.add_done_callback(self._running_out.discard)

    async def _read_out(self, answer: LiveAnswer) -> None:
        try:
            async with self._text(answer, 0, self._on_ran_out) as text:
                while (await text.read()).finish_reason is None:
                    pass
        except BatonError as error:
            logger.info("request %s ended without a reader: %s", answer.request_id, error.message)

    # --- generation

    def _submit_first(self, head: RequestHead, term: int, emitted: Sequence[int] | None) -> Generation:  # noqa: ARG002
        return self._dispatcher.submit(head.request)

    def _submit_again(self, head: RequestHead, term: int, emitted: Sequence[int] | None) -> Generation:
        left_s = head.deadline_s - self._unix_time()
        if left_s <= 0:
            raise _late(head)
        # Workers know attempts by name, and those of the earlier holder may still be there.
        request = replace(head.request, request_id=f"{head.request_id}-{term}", timeout_s=left_s)
        return self._dispatcher.submit(request, emitted)

    def _term(self) -> int:
        return int(self._unix_time() * MS_PER_S)


def _digest(tenant: str, key: str) -> str:
    """What a tenant's key is called in the store: of one length, and no other tenant's."""
    return hashlib.sha256(f"{tenant}\0{key}".encode()).hexdigest()


def _unknown(request_id: str) -> UnknownRequestError:
    return UnknownRequestError(
        f"request {request_id} is not known, or no longer kept; send the request anew, without Last-Event-ID"
    )


def _late(head: RequestHead) -> DeadlineError:
    return DeadlineError(
        f"request {head.request_id} did not end within {head.deadline_s - head.created_s:g} s; ask for fewer tokens"
    )
