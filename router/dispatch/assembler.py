"""Puts a request's tokens in order: position n + 1 is accepted only after n, and each only once."""

from collections.abc import Sequence

from core.logprobs import TokenLogprobs
from core.request import FinishReason
from core.token_runs import TokenRun


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
        self._held: dict[int, TokenRun] = {}  # by their position

    def accept(self, run: TokenRun) -> int:
        """Takes in tokens; returns how many positions became available.

        Repeated ones change nothing, nor does anything after the last token.
        """
        before = len(self.tokens)
        if self.finish_reason is not None:
            return 0
        if run.position > before:
            self._hold(run)
            return 0
        self._append(run)
        if self._held:
            self._append_held()
        return len(self.tokens) - before

    def drop_held(self) -> None:
        """Forgets what waits behind a gap: its attempt has ended, and the next generates it again."""
        self._held.clear()

    def _hold(self, run: TokenRun) -> None:
        """Keeps the longest of those that begin alike."""
        held = self._held.get(run.position)
        if held is None or len(run.token_ids) > len(held.token_ids):
            self._held[run.position] = run

    def _append_held(self) -> None:
        """Takes what leaves no gap any more, up to the last token."""
        while self._held and self.finish_reason is None and (first := min(self._held)) <= len(self.tokens):
            self._append(self._held.pop(first))

    def _append(self, run: TokenRun) -> None:
        """Takes what is new of a run that leaves no gap.

        tokens  [ 0 ......... n )
        run          [ position ....... end )
        known        [ ...... n )
        """
        num_known = len(self.tokens) - run.position
        if num_known >= len(run.token_ids):
            return
        if not self.tokens:
            self.num_cached_tokens = run.cached_tokens
        self.tokens += run.token_ids[num_known:] if num_known else run.token_ids
        self.logprobs += run.logprobs[num_known:]
        self.finish_reason = run.finish_reason
