"""What happens to each request and when, as the dispatcher says it, and those who want to hear of it.

Everything here is called on the event loop, takes constant time, and raises nothing.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from core.clock import Clock
from core.errors import BatonError, CancelledRequestError
from core.ids import WorkerId
from core.request import Assignment, FinishReason, GenerationRequest
from core.token_runs import TokenRun
from router.observe.attempt_times import AttemptTimes
from router.observe.phases import Phases
from router.observe.traceparent import TraceParent
from router.roles.snapshot import Limits


class RequestObserver(Protocol):
    """Who hears of every request while it is served."""

    def arrived(self, times: "RequestTimes") -> None:
        """A request has come; it may still be refused, and then no more is heard of it than `placed`."""
        ...

    def placed(self, times: "RequestTimes", num_uncached_tokens: int) -> None:
        """It is known how many tokens of its prompt must be computed: all, when no worker is there to have any."""
        ...

    def received(self, times: "RequestTimes", num_new_tokens: int, gap_s: float | None) -> None:
        """Tokens of its answer have come, `gap_s` seconds after those before; None for the first."""
        ...

    def ended(self, times: "RequestTimes") -> None:
        """It was answered, or has failed; `times` says which."""
        ...


@dataclass(slots=True)
class Totals:
    """Counts over all requests since the router started.

    Attributes:
        num_attempts: placements, repeated ones included.
        num_resumed: those of them of an answer that had begun.
        num_moved: sequences that went on at another worker while they generated.
        returned: attempts that came back unfinished, by code.
        refused: requests that were not accepted because too much waits, by `OverloadedError.reason`.
    """

    num_attempts: int = 0
    num_resumed: int = 0
    num_moved: int = 0
    returned: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)


class RequestTimes:
    """One request on its way; the dispatcher says what happens to it.

    Args:
        watch: tells those who listen.
        request: what is asked for.
        num_emitted: tokens of its answer that came before, elsewhere; they count as part of its prompt.

    Attributes:
        request_id: of the request.
        num_prompt_tokens: tokens whose KV must exist before its next token.
        tenant: whose it is; may be empty.
        tags: what log lines about it carry.
        parent: the client's span that it is a part of; None when the client named none.
        arrived_s: when it came, on the clock, as all that follows.
        first_s: when its first token came; None until then.
        second_s: likewise its second.
        last_s: its last so far.
        ended_s: when it ended.
        attempts: its placements, in order.
        first_attempt: the one that brought the first token.
        moves: when it went on at another worker while it generated, and where.
        num_tokens: of the answer so far, beyond those that came elsewhere.
        num_cached_tokens: of the prompt, found and not computed.
        finish_reason: why the answer ended; None unless it is answered.
        error: why there is none; None unless it has failed.
    """

    def __init__(self, watch: "RequestWatch", request: GenerationRequest, num_emitted: int = 0) -> None:
        self._watch = watch
        self._num_emitted = num_emitted
        self.request_id = request.request_id
        self.num_prompt_tokens = len(request.prompt) + num_emitted
        self.tenant = request.tenant
        self.tags: Mapping[str, str] = {"request_id": request.request_id}
        self.parent: TraceParent | None = None
        self.arrived_s = self.last_s = watch.now_s()
        self.first_s: float | None = None
        self.second_s: float | None = None
        self.ended_s: float | None = None
        self.attempts: list[AttemptTimes] = []
        self.first_attempt: AttemptTimes | None = None
        self.moves: list[tuple[float, WorkerId]] = []
        self.num_tokens = 0
        self.num_cached_tokens = 0
        self.finish_reason: FinishReason | None = None
        self.error: BatonError | None = None

    @property
    def ttft_s(self) -> float | None:
        """Seconds to the first token; None until it has come."""
        return None if self.first_s is None else self.first_s - self.arrived_s

    @property
    def tpot_s(self) -> float | None:
        """Mean seconds per token after the first; None with fewer than two tokens."""
        if self.first_s is None or self.num_tokens < 2:  # noqa: PLR2004 - a mean of gaps needs one
            return None
        return (self.last_s - self.first_s) / (self.num_tokens - 1)

    @property
    def is_answered(self) -> bool:
        """Whether it has ended with an answer."""
        return self.finish_reason is not None

    @property
    def is_given_up(self) -> bool:
        """Whether it has ended because nobody wanted the answer any more."""
        return isinstance(self.error, CancelledRequestError)

    @property
    def phases(self) -> Phases | None:
        """Where the time has gone; None until the first token has come."""
        attempt = self.first_attempt
        if self.first_s is None or attempt is None or attempt.prefilled is None:
            return None
        return Phases.of(
            arrived_s=self.arrived_s,
            first_assigned_s=self.attempts[0].assigned_s,
            assigned_s=attempt.assigned_s,
            first_s=self.first_s,
            second_s=self.second_s,
            last_s=self.last_s,
            prefilled=attempt.prefilled,
            decoded=attempt.decoded,
        )

    def left_s(self) -> float:
        """Seconds in which its first token must come to be in time; below 0 when late, infinite when it has come."""
        due_s = self.arrived_s + self._watch.limits.ttft_s
        return due_s - self._watch.now_s() if self.first_s is None else math.inf

    # --- said by the dispatcher

    def placed(self, num_uncached_tokens: int) -> None:
        """How many tokens of its prompt must be computed. Once, after the first try to place it."""
        for observer in self._watch.observers:
            observer.placed(self, num_uncached_tokens)

    def refused(self, num_uncached_tokens: int, reason: str) -> None:
        """It is not accepted: what it asked for is told as if it had been, and nothing more."""
        self._watch.totals.refused[reason] += 1
        self.placed(num_uncached_tokens)

    def assigned(self, assignment: Assignment) -> None:
        """An attempt begins."""
        self.attempts.append(AttemptTimes.of(assignment, self._watch.now_s()))
        self._watch.totals.num_attempts += 1
        self._watch.totals.num_resumed += assignment.first_position > 0

    def timed(self, run: TokenRun) -> None:
        """Tokens have come that say what came before them; they may be some that wait for those before."""
        attempt = self.attempts[-1] if self.attempts else None
        if attempt is not None and attempt.handoff_id == run.handoff_id:
            attempt.take(run)

    def returned(self, code: str) -> None:
        """The attempt has come back unfinished."""
        self._watch.totals.returned[code] += 1
        self.attempts[-1].returned_s, self.attempts[-1].code = self._watch.now_s(), code

    def moved(self, worker: WorkerId) -> None:
        """It goes on at another worker."""
        self._watch.totals.num_moved += 1
        self.moves.append((self._watch.now_s(), worker))

    def received(self, num_tokens: int, num_cached_tokens: int = 0) -> None:
        """Its answer has `num_tokens` tokens by now, more than before; so much of its prompt was found."""
        now_s = self._watch.now_s()
        num_tokens -= self._num_emitted
        num_new, self.num_tokens = num_tokens - self.num_tokens, num_tokens
        gap_s = None if self.first_s is None else now_s - self.last_s
        if self.first_s is None:
            self.first_s, self.num_cached_tokens = now_s, num_cached_tokens
            self.first_attempt = self.attempts[-1] if self.attempts else None
        if self.second_s is None and num_tokens > 1:
            self.second_s = now_s
        self.last_s = now_s
        for observer in self._watch.observers:
            observer.received(self, num_new, gap_s)

    def answered(self, reason: FinishReason) -> None:
        """Its answer is complete."""
        self.finish_reason = reason
        self._end()

    def failed(self, error: BatonError) -> None:
        """It has ended without an answer."""
        self.error = error
        self._end()

    def _end(self) -> None:
        self.ended_s = self._watch.now_s()
        for observer in self._watch.observers:
            observer.ended(self)
        for hear in self._watch.on_ended:
            hear(self)


class RequestWatch:
    """Begins the times of requests.

    Args:
        clock: for all times.
        limits: what a request must keep to count as inside them.
        observers: hear of every request, in this order.
        on_arrived: hear of it before them, and of nothing else.
        on_ended: hear of those that have ended only.

    Attributes:
        limits: see above.
        observers: likewise.
        on_ended: likewise.
        totals: over all requests.
    """

    def __init__(
        self,
        clock: Clock,
        limits: Limits,
        observers: Sequence[RequestObserver] = (),
        *,
        on_arrived: Sequence[Callable[[RequestTimes], None]] = (),
        on_ended: Sequence[Callable[[RequestTimes], None]] = (),
    ) -> None:
        self._clock = clock
        self.limits = limits
        self.observers = observers
        self._on_arrived = on_arrived
        self.on_ended = on_ended
        self.totals = Totals()

    def now_s(self) -> float:
        """Seconds on the clock."""
        return self._clock.now_s()

    def arrived(self, request: GenerationRequest, num_emitted: int = 0) -> RequestTimes:
        """A request has come; what is returned hears of the rest. It may have begun elsewhere, see `RequestTimes`."""
        times = RequestTimes(self, request, num_emitted)
        for hear in self._on_arrived:
            hear(times)
        for observer in self.observers:
            observer.arrived(times)
        return times
