"""The seam between the front ends (HTTP, gRPC) and the dispatcher: submit tokens, read tokens, cancel."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from core.logprobs import TokenLogprobs
from core.request import FinishReason, GenerationRequest


class TokenDelta(NamedTuple):
    """Tokens that have arrived since the last read. A tuple, for one is made per read.

    Attributes:
        token_ids: in order, none missing; empty only when the answer has ended without a further token.
        finish_reason: set on the last delta of an answer, and only there.
        logprobs: one for each of the tokens when the request asked for them, else empty.
    """

    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None
    logprobs: tuple[TokenLogprobs, ...] = ()


class Generation(Protocol):
    """One answer in the making. Whoever holds it must read it to its end or cancel it."""

    @property
    def request_id(self) -> str:
        """The id of the request it answers."""
        ...

    @property
    def num_cached_tokens(self) -> int:
        """Tokens of the prompt whose KV was found when the first token was computed; 0 until that has arrived."""
        ...

    async def read(self) -> TokenDelta:
        """Waits for new tokens and returns all that have arrived.

        Raises:
            BatonError: the request failed for good (no worker, deadline, lost too often); nothing more will come.
        """
        ...

    def cancel(self, *, is_answered: bool = False) -> None:
        """Stops the work on all workers and frees what it holds. Idempotent; harmless after the end.

        Args:
            is_answered: whether what has been read is the whole answer, by a rule that workers do not know, such as
                a stop string; else nobody wants it.
        """
        ...


class Dispatcher(Protocol):
    """Takes requests in token ids and has workers generate the answers."""

    def submit(self, request: GenerationRequest, emitted: Sequence[int] | None = None) -> Generation:
        """Accepts a request; placement and generation go on in the background.

        Args:
            request: what is asked for.
            emitted: None for a new request. For one that was accepted before, by whichever router, the tokens of its
                answer that were generated then: fewer than `max_tokens`, without the last one of the answer, and none
                of a request with logprobs. Generation goes on after them and they are not read again.

        Raises:
            BatonError: the request cannot be accepted.
        """
        ...

    def abort(self, request_id: str, tenant: str) -> None:
        """Ends a tenant's request, named by its id or by its client's name for it, as if its client had left.

        Raises:
            UnknownRequestError: the tenant has no such request under way here.
        """
        ...

    def unready_reason(self) -> str | None:
        """None when requests can be served now, else one sentence that says what is missing."""
        ...
