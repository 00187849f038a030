"""One answer that this router has in hand: its tokens so far, and everybody who reads them."""

import asyncio
from collections.abc import Callable, Sequence

from core.errors import BatonError
from core.logprobs import TokenLogprobs
from router.generation import Generation, TokenDelta
from router.journal.head import RequestHead
from router.journal.store import RequestUpdate, StoredRequest

# Read at once by somebody who is far behind: detokenizing them takes about 2 ms, in which nothing else happens.
MAX_DELTA_TOKENS = 256

Submit = Callable[[RequestHead, int, Sequence[int] | None], Generation]
"""Has an answer generated: of which request, in which term of its holder, after which tokens; None for a new one."""


class LiveAnswer:
    """Reads one generation for any number of readers, each of whom gets every token.

    There is no task: whoever needs tokens first reads them for all. So a single reader pays nothing for the others,
    and when nobody reads, nothing piles up here. Generation starts when a token is needed that is not there.

    Args:
        head: of the request.
        term: of this router's hold on it.
        submit: has tokens generated.
        num_cached_tokens: of the prompt, if that is known.
        token_ids: of the answer, generated before.
        is_accepted: whether the request was accepted before.

    Attributes:
        head: see above.
        term: see above.
        token_ids: of the answer.
        finish_reason: set once the last token is there. An answer that a stop string ends has none: that is its
            readers' to find.
        error: why there will be no further token; None as long as there may be.
        num_saved: tokens that the journal's store has; for the journal only.
        is_known: whether the store has the request; likewise.
        saving: done when the store has had the time to take the request; None when there is nothing to wait for.
    """

    def __init__(
        self,
        head: RequestHead,
        term: int,
        submit: Submit,
        *,
        token_ids: Sequence[int] = (),
        num_cached_tokens: int = 0,
        is_accepted: bool = False,
    ) -> None:
        is_scored = head.request.sampling.logprobs is not None
        self.head = head
        self.term = term
        # Log-probabilities are not kept, so tokens that need them are generated again.
        self.token_ids = [] if is_scored else list(token_ids)
        self.finish_reason = head.finish_reason(self.token_ids)
        self.error: BatonError | None = None
        self.num_saved = 0
        self.is_known = False
        self.saving: asyncio.Future[None] | None = None
        self._logprobs: list[TokenLogprobs] = []
        self._num_cached_tokens = num_cached_tokens
        self._has_first = bool(self.token_ids)
        self._is_accepted = is_accepted
        self._submit = submit
        self._generation: Generation | None = None
        self._is_led = False
        self._news: asyncio.Event | None = None
        self._num_readers = 0

    @classmethod
    def of(cls, stored: StoredRequest, submit: Submit) -> "LiveAnswer":
        """A request that this router has taken from the store.

        One that was refused is kept there as well, for the sake of its key, and so is one whose client left before
        its first token: these are new.
        """
        return cls(
            stored.head,
            stored.term,
            submit,
            token_ids=stored.token_ids,
            num_cached_tokens=stored.num_cached_tokens,
            is_accepted=stored.was_running or bool(stored.token_ids),
        )

    def again(self, term: int, submit: Submit) -> "LiveAnswer":
        """The same answer as far as it has come, for new readers, when the work for this one has ended."""
        return LiveAnswer(
            self.head,
            max(term, self.term + 1),
            submit,
            token_ids=self.token_ids,
            num_cached_tokens=self.num_cached_tokens,
            is_accepted=self._is_accepted,
        )

    @property
    def request_id(self) -> str:
        """Of the request."""
        return self.head.request_id

    @property
    def num_cached_tokens(self) -> int:
        """See `Generation.num_cached_tokens`; as it was when the first token came, wherever that was."""
        if self._has_first or self._generation is None:
            return self._num_cached_tokens
        return self._generation.num_cached_tokens

    @property
    def is_read(self) -> bool:
        """Whether anybody reads it."""
        return self._num_readers > 0

    @property
    def is_open(self) -> bool:
        """Whether a further token may come."""
        return self.finish_reason is None and self.error is None

    def start(self) -> None:
        """Has it generated now, unless that is under way.

        Raises:
            BatonError: the request cannot be accepted.
        """
        if self._generation is None:
            self._generation = self._submit(self.head, self.term, self.token_ids if self._is_accepted else None)
            self._is_accepted = True

    def stop(self, *, is_answered: bool = False) -> None:
        """Ends the work for it; see `Generation.cancel`. Idempotent."""
        if self._generation is not None:
            self._generation.cancel(is_answered=is_answered)

    def fail(self, error: BatonError) -> None:
        """Ends the work and has all readers see why, after the tokens that are there."""
        if self.is_open:
            self.error = error
            self.stop()
            self._wake()

    def update(self, *, is_running: bool, keep_s: float) -> RequestUpdate:
        """What the store is to know now."""
        first = self.num_saved if self.is_known else 0
        return RequestUpdate(
            head=self.head,
            is_new=not self.is_known,
            term=self.term,
            first=first,
            token_ids=tuple(self.token_ids[first:]),
            num_cached_tokens=self.num_cached_tokens,
            is_running=is_running,
            keep_s=keep_s,
        )

    # --- for readers

    def enter(self) -> None:
        """Somebody begins to read."""
        self._num_readers += 1

    def leave(self) -> None:
        """Somebody who began to read does no more."""
        self._num_readers -= 1

    async def wait_beyond(self, num_tokens: int) -> None:
        """Waits until there are more than `num_tokens` tokens, or the last one.

        Raises:
            BatonError: there will be none.
        """
        while len(self.token_ids) <= num_tokens and self.finish_reason is None:
            if self.error is not None:
                raise self.error
            if self._is_led:
                self._news = self._news or asyncio.Event()
                await self._news.wait()
            else:
                await self._lead()

    def delta(self, first: int, end: int) -> TokenDelta:
        """Tokens from position `first` to before `end`, and why the answer has ended if that is its end."""
        reason = self.finish_reason if end == len(self.token_ids) else None
        return TokenDelta(tuple(self.token_ids[first:end]), reason, tuple(self._logprobs[first:end]))

    async def _lead(self) -> None:
        """Reads new tokens, for all who wait."""
        self._is_led = True
        try:
            self.start()
            assert self._generation is not None, "start() sets it"
            self._take(await self._generation.read())
        except BatonError as error:
            self.error = self.error or error
        finally:
            self._is_led = False
            self._wake()

    def _take(self, delta: TokenDelta) -> None:
        if not self._has_first:
            self._num_cached_tokens, self._has_first = self.num_cached_tokens, True
        self.token_ids += delta.token_ids
        self._logprobs += delta.logprobs
        self.finish_reason = delta.finish_reason

    def _wake(self) -> None:
        if self._news is not None:
            self._news.set()
            self._news = None


OnLeft = Callable[[LiveAnswer, bool], None]
"""Hears that a reader has stopped, and whether because the answer is complete; see `Generation.cancel`."""


class AnswerReader:
    """Implements `router.generation.Generation`: one reader of a live answer, from its beginning.

    Args:
        answer: that is read.
        cut: a number of tokens after which a delta ends, without the end of the answer, so that what they gave can be
            told from what follows.
        on_cancel: called once, when the reader stops.
        save_timeout_s: the first tokens wait for the store so long at most.
    """

    def __init__(self, answer: LiveAnswer, cut: int, on_cancel: OnLeft, save_timeout_s: float) -> None:
        self._answer = answer
        self._cut = cut
        self._on_cancel: OnLeft | None = on_cancel
        self._save_timeout_s = save_timeout_s
        self._num_read = 0
        answer.enter()

    @property
    def request_id(self) -> str:
        """The id of the request it answers."""
        return self._answer.request_id

    @property
    def num_cached_tokens(self) -> int:
        """See `Generation.num_cached_tokens`."""
        return self._answer.num_cached_tokens

    async def read(self) -> TokenDelta:
        """See `Generation.read`."""
        answer, first = self._answer, self._num_read
        await answer.wait_beyond(first)
        if first == 0 and answer.saving is not None and not answer.saving.done():
            await asyncio.wait((answer.saving,), timeout=self._save_timeout_s)
        num_tokens = len(answer.token_ids)
        is_before_cut = first < self._cut <= num_tokens
        end = min(num_tokens, first + MAX_DELTA_TOKENS, self._cut if is_before_cut else num_tokens)
        if end < num_tokens:
            await asyncio.sleep(0)  # somebody far behind lets others have their turn
        self._num_read = end
        delta = answer.delta(first, end)
        return delta._replace(finish_reason=None) if is_before_cut else delta

    def cancel(self, *, is_answered: bool = False) -> None:
        """See `Generation.cancel`; the work goes on if others read, or the request is to run to its end."""
        if self._on_cancel is not None:
            on_cancel, self._on_cancel = self._on_cancel, None
            self._answer.leave()
            on_cancel(self._answer, is_answered)
