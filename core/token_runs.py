"""Tokens as workers tell routers of them: those of one sequence that follow each other are one run."""

from collections.abc import Iterable
from typing import NamedTuple

from core.events import TokenEvent, TokenTiming
from core.logprobs import TokenLogprobs
from core.request import FinishReason


class TokenRun(NamedTuple):
    """Generated tokens of one sequence that follow each other. A tuple: one is made per sequence and step.

    Attributes:
        handoff_id: the attempt they belong to.
        position: index of the first of them in the answer.
        token_ids: one at least.
        finish_reason: set when the answer ends with the last of them.
        logprobs: one for each of them when the request asked for them, else none.
        cached_tokens: see `TokenEvent`; of the first of them.
        timing: likewise.
    """

    handoff_id: str
    position: int
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()
    cached_tokens: int = 0
    timing: TokenTiming | None = None

    @property
    def positions(self) -> range:
        """Indices of all of them in the answer."""
        return range(self.position, self.position + len(self.token_ids))

    @property
    def has_details(self) -> bool:
        """Whether they say more than which tokens they are; most do not."""
        return bool(self.finish_reason or self.logprobs or self.cached_tokens or self.timing)

    def is_continued_by(self, event: TokenEvent) -> bool:
        """Whether a token of the same attempt can be the next of this run."""
        says_no_more = event.timing is None and not event.cached_tokens and self.finish_reason is None
        return says_no_more and event.position == self.positions.stop and bool(self.logprobs) is bool(event.logprobs)

    def with_next(self, event: TokenEvent) -> "TokenRun":
        """The run with a token that continues it."""
        return self._replace(
            token_ids=(*self.token_ids, event.token_id),
            finish_reason=event.finish_reason,
            logprobs=(*self.logprobs, *_logprobs_of(event)),
        )


def runs_of(events: Iterable[TokenEvent]) -> list[TokenRun]:
    """The same tokens; those of one sequence that follow each other are one run."""
    runs: list[TokenRun] = []
    last: dict[str, int] = {}  # by attempt, its run that may go on
    for event in events:
        index = last.get(event.handoff_id)
        if index is not None and runs[index].is_continued_by(event):
            runs[index] = runs[index].with_next(event)
        else:
            last[event.handoff_id] = len(runs)
            runs.append(_new_run(event))
    return runs


def _new_run(event: TokenEvent) -> TokenRun:
    token_ids, logprobs = (event.token_id,), _logprobs_of(event)
    return TokenRun(
        event.handoff_id, event.position, token_ids, event.finish_reason, logprobs, event.cached_tokens, event.timing
    )


def _logprobs_of(event: TokenEvent) -> tuple[TokenLogprobs, ...]:
    return () if event.logprobs is None else (event.logprobs,)
