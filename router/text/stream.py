"""One answer as text: tokens from a `Generation`, detokenized, ended by stop strings. Not SSE, not JSON.

The text that has been shown is a function of the tokens counted, however they arrived.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple, Self

from core.logprobs import TokenLogprobs
from core.request import FinishReason
from router.generation import Generation, TokenDelta
from router.text.detokenizer import Detokenizer
from router.text.held_logprobs import HeldLogprobs
from router.text.stop import StopMatcher


class TextDelta(NamedTuple):
    """Text that has become certain since the last read. A tuple, for one is made per read.

    Attributes:
        text: to be shown; may be empty while an incomplete character or a possible stop string is held.
        token_ids: the tokens counted since the last read, the end-of-sequence token among them; tokens after the
            one that completed a stop string are not.
        finish_reason: set on the last delta of an answer, and only there.
        logprobs: when the request asked for them, those of the tokens whose text has become certain. Over all
            deltas they are those of all tokens counted, in order; the last delta has what is left.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None
    logprobs: tuple[TokenLogprobs, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Tokens this delta adds to the completion."""
        return len(self.token_ids)


class TextGeneration:
    """Reads one answer as text. Whoever holds it reads it to its end, or cancels it; as a context manager it cancels.

    Attributes:
        num_completion_tokens: tokens generated so far, up to and including the one that completed a stop string.
            An end-of-sequence token counts, as in OpenAI's and vLLM's `usage.completion_tokens`.
    """

    def __init__(
        self,
        generation: Generation,
        detokenizer: Detokenizer,
        *,
        stops: Sequence[str] = (),
        stop_token_ids: frozenset[int] = frozenset(),
        min_tokens: int = 0,
    ) -> None:
        """Takes over an answer nobody has read from.

        Args:
            generation: the answer in tokens; cancelled when a stop string completes.
            detokenizer: a fresh one, for this answer only.
            stops: strings that end the answer and are not shown.
            stop_token_ids: those of the request; the one that ends the answer is counted, not shown.
            min_tokens: stop strings that are complete within so many tokens do not end the answer.

        Raises:
            InvalidRequestError: a stop string is empty.
        """
        self._generation = generation
        self._detokenizer = detokenizer
        self._stop_matcher = StopMatcher(stops)
        self._stop_token_ids = stop_token_ids
        self._min_tokens = min_tokens
        self._held_logprobs = HeldLogprobs()
        self._finished = False
        self.num_completion_tokens = 0

    @property
    def request_id(self) -> str:
        """The id of the request it answers."""
        return self._generation.request_id

    @property
    def num_cached_tokens(self) -> int:
        """See `Generation.num_cached_tokens`."""
        return self._generation.num_cached_tokens

    async def read(self) -> TextDelta:
        """Waits for new tokens and returns their text. Not to be called after the last delta.

        Raises:
            BatonError: the request failed for good; nothing more will come.
        """
        assert not self._finished, f"request {self.request_id} was read past its end"
        delta = self._detokenize(await self._generation.read())
        self.num_completion_tokens += delta.num_tokens
        self._finished = delta.finish_reason is not None
        return delta

    def cancel(self) -> None:
        """Stops the work on all workers. Idempotent; harmless after the end."""
        self._generation.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cancel()

    def _detokenize(self, delta: TokenDelta) -> TextDelta:
        shown = self._without_stop_token(delta)
        text, num_shown = self._show_scored(shown, delta.logprobs) if delta.logprobs else self._show(shown)
        if num_shown is not None:
            return self._stopped(text, delta.token_ids[:num_shown])
        if delta.finish_reason is None:
            return TextDelta(text, delta.token_ids, None, self._held_logprobs.release())
        self._held_logprobs.add(delta.logprobs[len(shown) :], is_cut=False)
        piece, matched = self._match(self._detokenizer.finish(), self.num_completion_tokens + len(delta.token_ids))
        if matched:
            return self._stopped(text + piece, delta.token_ids)
        text += piece + self._stop_matcher.finish()
        return TextDelta(text, delta.token_ids, delta.finish_reason, self._held_logprobs.release_all())

    # Token by token, or as if: what is shown after n tokens must not depend on how they arrived, so that an answer
    # can be replayed and goes on behind what a client has got.

    def _show(self, token_ids: Sequence[int]) -> tuple[str, int | None]:
        """Text to show with tokens, and how many of them there are if they stop the answer; None if they do not."""
        pieces = self._detokenizer.push(token_ids)
        text = "".join(pieces)
        if not self._stop_matcher.is_completed_by(text):
            return self._stop_matcher.push(text)[0], None
        text = ""
        for num_shown, piece in enumerate(pieces, start=1):
            shown, matched = self._match(piece, self.num_completion_tokens + num_shown)
            text += shown
            if matched:
                return text, num_shown
        return text, None

    def _show_scored(self, token_ids: Sequence[int], logprobs: Sequence[TokenLogprobs]) -> tuple[str, int | None]:
        """Likewise, with the log-probabilities of the tokens."""
        text = ""
        for num_shown, token_id in enumerate(token_ids, start=1):
            (piece,) = self._detokenizer.push((token_id,))
            self._held_logprobs.num_chars += len(piece)
            shown, matched = self._match(piece, self.num_completion_tokens + num_shown)
            text += shown
            self._held_logprobs.add(logprobs[num_shown - 1 : num_shown], is_cut=self._detokenizer.is_holding)
            if matched:
                return text, num_shown
        return text, None

    def _match(self, text: str, num_tokens: int) -> tuple[str, bool]:
        """Text to show of that which makes the answer `num_tokens` long, and whether it is stopped."""
        piece, matched = self._stop_matcher.push(text, may_stop=num_tokens > self._min_tokens)
        self._held_logprobs.num_shown += len(piece)
        return piece, matched

    def _without_stop_token(self, delta: TokenDelta) -> tuple[int, ...]:
        token_ids = delta.token_ids
        ended_by_token = delta.finish_reason is FinishReason.STOP and token_ids[-1:] != ()
        return token_ids[:-1] if ended_by_token and token_ids[-1] in self._stop_token_ids else token_ids

    def _stopped(self, text: str, token_ids: tuple[int, ...]) -> TextDelta:
        self._generation.cancel(is_answered=True)
        return TextDelta(text, token_ids, FinishReason.STOP, self._held_logprobs.release_all())
