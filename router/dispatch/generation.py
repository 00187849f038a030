"""One request while it is being served: its attempts, its tokens, and whoever reads them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Protocol

from core.errors import BatonError
from core.ids import WorkerId, handoff_id
from core.request import Assignment, GenerationRequest, PrefixSource
from core.token_runs import TokenRun
from router.dispatch.assembler import TokenAssembler
from router.dispatch.prompt_names import PromptNames
from router.dispatch.timers import RequestTimers
from router.fleet.link import WorkerLink
from router.generation import TokenDelta
from router.observe.request_times import RequestTimes


class RequestState(Enum):
    """Where a request is."""

    WAITING = auto()
    PLACED = auto()
    ENDED = auto()


class RequestEvent(Enum):
    """What moves it."""

    PLACE = auto()
    RETURN = auto()
    END = auto()


TRANSITIONS: dict[tuple[RequestState, RequestEvent], RequestState] = {
    (RequestState.WAITING, RequestEvent.PLACE): RequestState.PLACED,
    (RequestState.PLACED, RequestEvent.RETURN): RequestState.WAITING,
    (RequestState.PLACED, RequestEvent.END): RequestState.ENDED,
    (RequestState.WAITING, RequestEvent.END): RequestState.ENDED,
}


@dataclass(slots=True)
class Attempt:
    """One placement of a request, and what it was charged to whom.

    Attributes:
        assignment: what both workers were sent.
        prefill: who computes the prompt.
        decode: who generates.
        open_blocks: KV blocks promised to it on the decode worker; 0 once its prompt is computed.
        open_prompt_tokens: prompt tokens charged to the prefill worker and not yet computed; those that it has cached
            or is to fetch are not.
        is_handed_over: whether the decode worker has generated, so that the prefill worker is not needed any more.
        next: the attempt that is to go on with this one at another worker, of which `decode` is still generating;
            None while nothing of the kind is under way.
        has_spoken: whether a token of it has been accepted.
        num_failed_moves: how often it was to go on elsewhere and stayed.
        move_after_s: on the event loop's time, when that may be tried again.
    """

    assignment: Assignment
    prefill: WorkerLink
    decode: WorkerLink
    open_blocks: int
    open_prompt_tokens: int
    is_handed_over: bool = False
    next: "Attempt | None" = None
    has_spoken: bool = False
    num_failed_moves: int = 0
    move_after_s: float = 0.0

    @property
    def handoff_id(self) -> str:
        """Names it."""
        return self.assignment.handoff_id

    @property
    def is_one_token(self) -> bool:
        """Whether its answer ends where its prompt is computed: the decode worker is told nothing of it then."""
        return self.assignment.max_new_tokens == 1

    def links(self) -> tuple[WorkerLink, WorkerLink]:
        """Both workers, which may be the same."""
        return self.prefill, self.decode

    def told(self) -> tuple[WorkerLink, ...]:
        """Those of them that have the assignment; the decode worker first, so that it knows of what it is offered."""
        return (self.prefill,) if self.is_one_token or self.decode is self.prefill else (self.decode, self.prefill)

    def needs(self, link: WorkerLink) -> bool:
        """Whether the attempt fails with this worker."""
        return link is self.decode or (link is self.prefill and not self.is_handed_over)


class OnCancel(Protocol):
    """Ends a request that has not ended; see `Generation.cancel`."""

    def __call__(self, generation: "ActiveGeneration", *, is_answered: bool) -> None:
        """Ends it."""
        ...


class ActiveGeneration:
    """Implements `router.generation.Generation`; the dispatcher writes, a front end reads.

    Attributes:
        request: what the client asked for.
        answer: tokens so far.
        state: written by `move` only.
        attempt: the current placement while PLACED.
        num_attempts: placements so far.
        failures: placements in a row that brought no token.
        avoid: workers that failed this request.
        timers: what is to happen to it later.
        names: of the blocks of its prompt.
        times: hears what happens to it.
        computed_by: the worker that was last to compute its prompt; None until it is placed.
        is_new: whether it was never accepted before, here or by another router.
    """

    def __init__(
        self,
        request: GenerationRequest,
        on_cancel: OnCancel,
        times: RequestTimes,
        emitted: Sequence[int] | None = None,
    ) -> None:
        self.request = request
        self.answer = TokenAssembler(emitted or ())
        self.state = RequestState.WAITING
        self.attempt: Attempt | None = None
        self.num_attempts = 0
        self.failures = 0
        self.avoid: set[WorkerId] = set()
        self.timers = RequestTimers()
        self.names = PromptNames(request.cache_salt)
        self.times = times
        self.computed_by: WorkerLink | None = None
        self.is_new = emitted is None
        self._on_cancel = on_cancel
        self._num_read = len(self.answer.tokens)
        self._error: BatonError | None = None
        self._waiting: asyncio.Future[None] | None = None  # its reader

    # --- read by a front end

    @property
    def request_id(self) -> str:
        """The id of the request it answers."""
        return self.request.request_id

    @property
    def num_cached_tokens(self) -> int:
        """See `Generation.num_cached_tokens`."""
        return self.answer.num_cached_tokens

    async def read(self) -> TokenDelta:
        """See `Generation.read`. Tokens that arrived before an error come first; the error comes every time."""
        while not self._has_news():
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        new_tokens = tuple(self.answer.tokens[self._num_read :])
        logprobs = tuple(self.answer.logprobs[self._num_read :])
        self._num_read += len(new_tokens)
        if new_tokens or self.answer.finish_reason is not None:
            return TokenDelta(new_tokens, self.answer.finish_reason, logprobs)
        assert self._error is not None, "news are tokens, the end or an error"
        raise self._error

    def cancel(self, *, is_answered: bool = False) -> None:
        """See `Generation.cancel`."""
        if self.state is not RequestState.ENDED:
            self._on_cancel(self, is_answered=is_answered)

    # --- written by the dispatcher

    @property
    def placement(self) -> Attempt:
        """The current attempt of a request that is known to be placed."""
        assert self.attempt is not None, f"request {self.request_id} is not placed"
        return self.attempt

    def progress(self) -> str:
        """How far it is, for people."""
        if self.answer.tokens:
            return f"{len(self.answer.tokens)} of at most {self.request.max_tokens} tokens had come"
        if self.attempt is None:
            return "it waited for a worker"
        return f"its prompt waited or was computed at {self.attempt.prefill.worker}"

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens of `next_prompt`."""
        return len(self.request.prompt) + len(self.answer.tokens)

    @property
    def next_prompt(self) -> tuple[int, ...]:
        """Tokens whose KV the next attempt must have: the prompt and the answer so far."""
        return (*self.request.prompt, *self.answer.tokens) if self.answer.tokens else self.request.prompt

    def next_assignment(
        self, prefill: WorkerLink, decode: WorkerLink, prefix_source: PrefixSource | None = None
    ) -> Assignment:
        """The next attempt: goes on exactly where the answer stands."""
        num_emitted = len(self.answer.tokens)
        return Assignment(
            handoff_id=self._next_handoff_id(),
            prompt=self.next_prompt,
            first_position=num_emitted,
            max_new_tokens=self.request.max_tokens - num_emitted,
            sampling=self.request.sampling,
            stop_token_ids=self.request.stop_token_ids,
            prefill=prefill.endpoint,
            decode=decode.endpoint,
            cache_salt=self.request.cache_salt,
            prefix_source=prefix_source,
            tenant=self.request.tenant,
            priority=self.request.priority,
            tenant_answer_tokens=prefill.take_answer_tokens(self.request.tenant),
        )

    def moved_assignment(self, decode: WorkerLink) -> Assignment:
        """The current attempt's work as it goes on at another worker, which gets the KV from the current one."""
        here = self.placement
        return replace(
            here.assignment,
            handoff_id=self._next_handoff_id(),
            prefill=here.decode.endpoint,
            decode=decode.endpoint,
            prefix_source=None,
            tenant_answer_tokens=0,
        )

    def _next_handoff_id(self) -> str:
        self.num_attempts += 1
        return handoff_id(self.request_id, self.num_attempts - 1)

    def take(self, run: TokenRun) -> int:
        """Takes in tokens of the current attempt, or of the one that goes on with it; returns how many are new."""
        if run.timing is not None:
            self.times.timed(run)
        num_new = self.answer.accept(run)
        if num_new and (moving := self.placement.next) is not None and moving.handoff_id == run.handoff_id:
            moving.has_spoken = True
        return num_new

    def notify(self) -> None:
        """Wakes the reader, if it waits: tokens have arrived."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _has_news(self) -> bool:
        has_tokens = len(self.answer.tokens) > self._num_read
        return has_tokens or self.answer.finish_reason is not None or self._error is not None

    def fail(self, error: BatonError) -> None:
        """Has the reader see an error after the tokens that have arrived."""
        self._error = error
        self.notify()

    def move(self, event: RequestEvent) -> None:
        """Takes the transition of the table; an event the state has no place for is our bug."""
        self.state = TRANSITIONS[self.state, event]
