import asyncio
import contextlib
import logging

import pytest

from core.clock import ManualClock
from core.errors import CancelledRequestError, InvalidRequestError, NoWorkerError
from core.logs import TAGS
from core.request import FinishReason
from router.observe.access_log import log_call
from router.observe.call import REPLAYED, Call, Calls, Outcome, accept, name_call, note_refusal
from router.observe.request_times import RequestTimes, RequestWatch
from router.observe.traceparent import trace_id_of
from tests.router.builders import LIMITS, generation_request
from tests.router.observe.test_traceparent import VALID

OWN = f"{trace_id_of('r1', None):032x}"


class Front:
    """A front end without HTTP: its calls, and what has become of them."""

    def __init__(self, *, is_tracing: bool = False) -> None:
        self.clock = ManualClock()
        self.ended: list[tuple[Call, float]] = []
        self.calls = Calls(
            self.clock, [lambda call, s: self.ended.append((call, s)), log_call], is_tracing=is_tracing
        )
        self.watch = RequestWatch(self.clock, LIMITS, on_arrived=[accept])

    def call(self, traceparent: str | None = None) -> contextlib.AbstractContextManager[Call]:
        return self.calls.open(
            "http", "POST /v1/chat/completions", {} if traceparent is None else {"traceparent": traceparent}
        )

    def submit(self) -> RequestTimes:
        name_call("r1")
        return self.watch.arrived(generation_request("r1"))

    @property
    def outcome(self) -> tuple[Outcome, str]:
        ((call, _),) = self.ended
        return call.outcome


@pytest.fixture
def front() -> Front:
    return Front()


def test_answered_call_has_the_reason_why_its_answer_ended(front: Front) -> None:
    with front.call():
        times = front.submit()
        front.clock.advance(0.5)
        times.received(1)
        times.answered(FinishReason.LENGTH)
    assert front.outcome == (Outcome.ANSWERED, "length")
    assert front.ended[0][1] == 0.5


def test_call_that_is_refused_before_it_is_a_request_is_rejected(front: Front) -> None:
    with pytest.raises(InvalidRequestError), front.call():
        raise InvalidRequestError("no")
    assert front.outcome == (Outcome.REJECTED, InvalidRequestError.code)


def test_refusal_by_the_dispatcher_is_a_rejection(front: Front) -> None:
    with front.call():
        front.submit()
        note_refusal(NoWorkerError("too many"))
        note_refusal(ValueError("what follows from it does not count"))
    assert front.outcome == (Outcome.REJECTED, NoWorkerError.code)


def test_request_that_fails_has_the_code_of_its_own_error(front: Front) -> None:
    with front.call():
        front.submit().failed(NoWorkerError("gone"))
        note_refusal(ValueError("said later"))
    assert front.outcome == (Outcome.FAILED, NoWorkerError.code)


def test_defect_is_an_internal_error(front: Front) -> None:
    with pytest.raises(ZeroDivisionError), front.call():
        raise ZeroDivisionError
    assert front.outcome == (Outcome.REJECTED, "internal_error")


@pytest.mark.parametrize("is_accepted", [True, False])
def test_client_that_goes_away_is_no_failure(front: Front, is_accepted: bool) -> None:
    error = CancelledRequestError("it left")
    with front.call():
        if is_accepted:
            front.submit().failed(error)
        else:
            note_refusal(error)
    assert front.outcome == (Outcome.CANCELLED, "cancelled")


def test_task_that_is_cancelled_while_its_request_goes_on_is_a_client_that_went_away(front: Front) -> None:
    def submit_and_be_cancelled() -> None:
        front.submit()
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError), front.call():
        submit_and_be_cancelled()
    assert front.outcome == (Outcome.CANCELLED, "cancelled")


def test_answer_without_a_request_had_been_generated_before(front: Front) -> None:
    with front.call():
        pass
    assert front.outcome == (Outcome.ANSWERED, REPLAYED)


@pytest.mark.parametrize(
    ("is_tracing", "traceparent", "trace_id"),
    [(False, None, None), (False, VALID, VALID[3:35]), (True, VALID, VALID[3:35]), (True, None, OWN)],
)
def test_lines_of_a_call_have_its_request_and_its_trace(
    is_tracing: bool, traceparent: str | None, trace_id: str | None
) -> None:
    front = Front(is_tracing=is_tracing)
    with front.call(traceparent):
        times = front.submit()
        tags = dict(TAGS.get())
    assert tags.pop("request_id") == "r1"
    assert tags == ({} if trace_id is None else {"trace_id": trace_id})
    assert times.tags["request_id"] == "r1"
    assert (times.parent is not None) is (traceparent is not None)
    assert not TAGS.get()


async def test_calls_at_once_do_not_see_each_other(front: Front) -> None:
    both_open = asyncio.Barrier(2)

    async def one(request_id: str) -> str:
        with front.call():
            name_call(request_id)
            await both_open.wait()
            return front.watch.arrived(generation_request(request_id)).tags["request_id"]

    assert await asyncio.gather(one("a"), one("b")) == ["a", "b"]


def test_outside_of_calls_nothing_is_noted(front: Front) -> None:
    times = front.submit()
    note_refusal(NoWorkerError("no"))
    assert (times.parent, times.tags) == (None, {"request_id": "r1"})


def test_every_call_has_one_line_with_numbers_and_the_tenant(front: Front, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "baton.access"), front.call():
        times = front.submit()
        times.tenant = "acme"
        front.clock.advance(0.25)
        times.received(2, num_cached_tokens=1)
        times.answered(FinishReason.STOP)
    (line,) = caplog.records
    assert line.getMessage() == (
        "POST /v1/chat/completions outcome=answered code=stop duration_ms=250.0 tenant=acme prompt_tokens=3 "
        "cached_tokens=1 answer_tokens=2 attempts=0 ttft_ms=250.0"
    )
    assert line.fields["api"] == "http"  # type: ignore[attr-defined]


def test_line_of_a_refused_call_says_why(front: Front, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "baton.access"), front.call():
        note_refusal(InvalidRequestError("temperature is 9"))
    assert caplog.messages == ["POST /v1/chat/completions outcome=rejected code=invalid_value duration_ms=0.0"]
