"""One call of the API, from its arrival to the end of its answer, whether it becomes a request or is refused before.

The call under way is a context variable: whoever handles it, or refuses it, need not be handed it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum

from core.clock import Clock
from core.errors import BatonError, CancelledRequestError, InternalError
from core.logs import TAGS
from router.observe.phases import Phases
from router.observe.request_times import RequestTimes
from router.observe.traceparent import TRACE_HEADER, TraceParent, trace_id_of

REPLAYED = "replayed"
"""Code of an answer that had been generated before, so that no request was made of it."""

TIMING_HEADER = "x-baton-timing"
"""Of a request, `1` asks for its phases; of a response, it has them."""
HEADERS = (TRACE_HEADER, TIMING_HEADER)
"""All that `Calls.open` looks for."""
_YES = frozenset({"1", "true"})

_CALL: ContextVar["Call | None"] = ContextVar("call", default=None)


class Outcome(StrEnum):
    """How a call has ended."""

    ANSWERED = "answered"
    FAILED = "failed"
    """It was accepted, and could not be answered."""
    REJECTED = "rejected"
    """It was not accepted."""
    CANCELLED = "cancelled"
    """Its client went away."""


@dataclass(slots=True, eq=False)
class Call:
    """A call of the API.

    Attributes:
        api: `http` or `grpc`.
        method: what was called.
        started_s: when it came, on the clock.
        parent: the client's span that it is a part of; None when it named none.
        is_traced: whether it has a trace without that, too.
        wants_timing: whether its client asks where its time goes.
        tags: what log lines of this call carry.
        times: of the request that was made of it; None if none was. It has not ended if it was refused.
        refusal: why it was refused, by code; None if it was not.
    """

    api: str
    method: str
    started_s: float
    parent: TraceParent | None
    is_traced: bool
    wants_timing: bool
    tags: dict[str, str] = field(default_factory=dict)
    times: RequestTimes | None = None
    refusal: str | None = None

    def name(self, request_id: str) -> None:
        """Says the id of the request that is made of it."""
        self.tags["request_id"] = request_id
        if self.parent or self.is_traced:
            self.tags["trace_id"] = f"{trace_id_of(request_id, self.parent):032x}"

    @property
    def outcome(self) -> tuple[Outcome, str]:
        """How it has ended, and the reason why the answer ended or the code of the error."""
        times = self.times
        if times is not None and times.finish_reason is not None:
            return Outcome.ANSWERED, str(times.finish_reason)
        if times is not None and times.error is not None and not times.is_given_up:
            return Outcome.FAILED, times.error.code
        if times is None and self.refusal is None:
            return Outcome.ANSWERED, REPLAYED
        if self.refusal in {None, CancelledRequestError.code} or (times is not None and times.is_given_up):
            return Outcome.CANCELLED, CancelledRequestError.code
        return Outcome.REJECTED, self.refusal


class Calls:
    """Begins and ends calls.

    Args:
        clock: for their times.
        is_tracing: whether those without a trace get one.
        on_ended: hear of every call that has ended, and of how many seconds it took.

    Attributes:
        num_open: calls that have not ended.
    """

    def __init__(
        self, clock: Clock, on_ended: Sequence[Callable[[Call, float], None]] = (), *, is_tracing: bool = False
    ) -> None:
        self._clock = clock
        self._on_ended = on_ended
        self._is_tracing = is_tracing
        self.num_open = 0

    @contextmanager
    def open(self, api: str, method: str, headers: Mapping[str, str]) -> Iterator[Call]:
        """The call of the current task, while the context lasts; what ends it is raised as it is.

        Args:
            api: `http` or `grpc`.
            method: what is called.
            headers: or metadata, as the client sent it, at least `HEADERS`; names are in lower case.
        """
        call = Call(
            api,
            method,
            self._clock.now_s(),
            parent=TraceParent.parse(headers.get(TRACE_HEADER)),
            is_traced=self._is_tracing,
            wants_timing=headers.get(TIMING_HEADER, "").lower() in _YES,
        )
        tokens = _CALL.set(call), TAGS.set(call.tags)
        self.num_open += 1
        try:
            yield call
        except Exception as error:
            note_refusal(error)
            raise
        finally:
            self.num_open -= 1
            for hear in self._on_ended:
                hear(call, self._clock.now_s() - call.started_s)
            _CALL.reset(tokens[0])
            TAGS.reset(tokens[1])


def accept(times: RequestTimes) -> None:
    """A request has been made of the call of the current task, if there is one."""
    call = _CALL.get()
    if call is not None:
        call.times = times
        times.tags, times.parent = call.tags, call.parent


def name_call(request_id: str) -> None:
    """Says the id of the request that is to be made of the call of the current task, if there is one."""
    call = _CALL.get()
    if call is not None:
        call.name(request_id)


def phases_asked() -> Phases | None:
    """Where the time of the current call has gone so far; None if its client did not ask, or before a first token."""
    call = _CALL.get()
    return call.times.phases if call is not None and call.wants_timing and call.times is not None else None


def note_refusal(error: Exception) -> None:
    """The call of the current task, if there is one, is answered with an error; the first counts."""
    note_refusal_code(error.code if isinstance(error, BatonError) else InternalError.code)


def note_refusal_code(code: str) -> None:
    """Likewise, where there is no error of ours but the code that the client gets."""
    call = _CALL.get()
    if call is not None and call.refusal is None:
        call.refusal = code
