"""Puts a request's tokens in order: position n + 1 is accepted only after n, and each only once."""

from collections.abc import Sequence

from core.events import TokenEvent
from core.logprobs import TokenLogprobs
from core.request import FinishReason


class TokenAssembler:
    """The answer so far.

    The first token comes from the prefill worker and the second from the decode worker, on different streams, so the
    second may be here before the first; it is held until the gap closes.

    Args:
        emitted: tokens that the answer begins with, accepted before, without log-probabilities.

    Attributes:
        tokens: accepted tokens, none missing.
        logprobs: of each token when the request asked for them, else empty.
        finish_reason: set once the last token is accepted.
        num_cached_tokens: of the client's prompt, as said with the first token of the answer; a later attempt's
            prompt is longer by what the client has got already, and what is cached of that says nothing to it.
            So it stays 0 where the answer begins with emitted tokens.
    """

    def __init__(self, emitted: Sequence[int] = ()) -> None:
        self.tokens = list(emitted)
        self.logprobs: list[TokenLogprobs] = []
        self.finish_reason: FinishReason | None = None
        self.num_cached_tokens = 0
        self._held: dict[int, TokenEvent] = {}

    def accept(self, event: TokenEvent) -> int:
        """Takes in a token; returns how many positions became available.

        Repeated ones change nothing, nor does anything after the last token.
        """
        before = len(self.tokens)
        if event.position < before or self.finish_reason is not None:
            return 0
        self._held[event.position] = event
        while self.finish_reason is None and (ready := self._held.pop(len(self.tokens), None)) is not None:
            if not self.tokens:
                self.num_cached_tokens = ready.cached_tokens
            self.tokens.append(ready.token_id)
            if ready.logprobs is not None:
                self.logprobs.append(ready.logprobs)
            self.finish_reason = ready.finish_reason
        return len(self.tokens) - before

    def drop_held(self) -> None:
        """Forgets what waits behind a gap: its attempt has ended, and the next generates it again."""
        self._held.clear()
