"""Spans as OpenTelemetry's own exporters get them: in memory, and a collector over HTTP."""

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from core.clock import ManualClock
from core.errors import CancelledRequestError, NoWorkerError
from core.ids import WorkerId
from core.request import FinishReason
from router.observe.request_times import RequestTimes, RequestWatch
from router.observe.traceparent import TraceParent, trace_id_of
from router.observe.tracing import NS_PER_S, RequestTracer, open_tracer
from tests.builders import DECODE, PREFILL, assignment
from tests.router.builders import LIMITS, generation_request
from tests.router.observe.collector import Collector
from tests.router.observe.test_request_times import DECODED, PREFILLED, timed
from tests.router.observe.test_traceparent import VALID

STARTED_AT_NS = 1_700_000_000 * NS_PER_S


class Traced:
    """Requests in the test's own time, and their spans."""

    def __init__(self) -> None:
        self.clock, self.exporter = ManualClock(), InMemorySpanExporter()
        processor = SimpleSpanProcessor(self.exporter)
        self.tracer = RequestTracer(
            processor, self.clock, "router-1", lambda: STARTED_AT_NS + round(self.clock.now_s() * NS_PER_S)
        )
        self.watch = RequestWatch(self.clock, LIMITS, on_ended=[self.tracer.ended])

    def answered(self, parent: TraceParent | None = None, *, num_tokens: int = 3) -> RequestTimes:
        """First token after 1 s, the second 0.25 s later, the third 0.5 s after that."""
        times = self.watch.arrived(generation_request())
        times.parent = parent
        work = assignment("r.0")
        times.assigned(work)
        self.clock.advance(1.0)
        times.timed(timed(work, 0, PREFILLED))
        times.received(1)
        if num_tokens > 1:
            self.clock.advance(0.25)
            times.timed(timed(work, 1, DECODED))
            times.received(2)
            self.clock.advance(0.5)
            times.received(3)
        times.answered(FinishReason.STOP)
        return times

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}

    def seconds(self) -> dict[str, tuple[float, float]]:
        """From when to when each span was, since the beginning of the test."""
        return {
            name: ((span.start_time - STARTED_AT_NS) / NS_PER_S, (span.end_time - STARTED_AT_NS) / NS_PER_S)
            for name, span in self.spans.items()
            if span.start_time is not None and span.end_time is not None
        }


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Traced:
    for name in ("OTEL_TRACES_SAMPLER", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(name, raising=False)
    return Traced()


def test_every_phase_is_a_span_of_its_worker_inside_the_request(traced: Traced) -> None:
    traced.answered()
    assert traced.seconds() == {
        "queue": (0.0, 0.25), "prefill": (0.25, 0.75), "handoff": (1.0, 1.1875), "first_step": (1.1875, 1.25),
        "decode": (1.25, 1.75), "request": (0.0, 1.75),
    }  # fmt: skip
    request = traced.spans.pop("request")
    inner = [span for name, span in traced.spans.items() if name != "request"]
    assert {span.parent.span_id for span in inner if span.parent} == {request.context.span_id}
    workers = {name: (span.attributes or {}).get("baton.worker") for name, span in traced.spans.items()}
    assert (workers["prefill"], workers["first_step"]) == (str(PREFILL.worker), str(DECODE.worker))
    assert request.resource.attributes["service.name"] == "baton-router"


def test_answer_of_one_token_has_neither_handoff_nor_decode(traced: Traced) -> None:
    traced.answered(num_tokens=1)
    assert set(traced.spans) == {"request", "queue", "prefill"}


def test_request_says_what_it_was_and_nothing_of_what_was_said(traced: Traced) -> None:
    traced.answered()
    assert traced.spans["request"].attributes == {
        "baton.request_id": "r",
        "baton.tenant": "",
        "baton.attempts": 1,
        "baton.cached_tokens": 0,
        "baton.finish_reason": "stop",
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 3,
    }


def test_request_is_a_part_of_its_clients_trace(traced: Traced) -> None:
    parent = TraceParent.parse(VALID)
    assert parent is not None
    traced.answered(parent)
    request = traced.spans["request"]
    assert request.parent is not None
    assert (request.context.trace_id, request.parent.span_id) == (parent.trace_id, parent.span_id)
    assert {span.context.trace_id for span in traced.spans.values()} == {parent.trace_id}


def test_request_of_a_client_that_does_not_sample_makes_no_span(traced: Traced) -> None:
    traced.answered(TraceParent.parse(VALID[:-1] + "0"))
    assert not traced.spans


def test_request_without_a_parent_has_the_trace_that_its_log_lines_name(traced: Traced) -> None:
    traced.answered()
    assert {span.context.trace_id for span in traced.spans.values()} == {trace_id_of("r", None)}
    assert traced.spans["request"].parent is None


def test_attempts_and_moves_are_events_in_order(traced: Traced) -> None:
    times = traced.watch.arrived(generation_request())
    times.assigned(assignment("r.0"))
    traced.clock.advance(0.5)
    times.returned("worker_lost")
    times.assigned(assignment("r.1", first_position=2))
    times.moved(WorkerId("d2", 1))
    times.failed(NoWorkerError("nobody"))
    request = traced.spans["request"]
    assert [event.name for event in request.events] == ["placed", "returned", "resumed", "moved"]
    assert [(event.timestamp - STARTED_AT_NS) / NS_PER_S for event in request.events] == [0.0, 0.5, 0.5, 0.5]
    assert request.events[1].attributes == {"baton.code": "worker_lost"}
    assert set(traced.spans) == {"request"}


@pytest.mark.parametrize(
    ("error", "status"),
    [(NoWorkerError("nobody"), StatusCode.ERROR), (CancelledRequestError("it left"), StatusCode.UNSET)],
)
def test_failure_is_one_and_a_client_that_left_is_none(
    traced: Traced, error: NoWorkerError | CancelledRequestError, status: StatusCode
) -> None:
    traced.watch.arrived(generation_request()).failed(error)
    request = traced.spans["request"]
    assert request.status.status_code is status
    assert (request.attributes or {})["error.type"] == error.code


def test_what_is_left_reaches_the_collector_when_the_router_stops(collector: Collector) -> None:
    tracer = open_tracer(f"{collector.url}/", ManualClock(), "router-1")
    RequestWatch(ManualClock(), LIMITS, on_ended=[tracer.ended]).arrived(generation_request()).failed(
        NoWorkerError("nobody")
    )
    tracer.close()
    ((path, request),) = collector.received
    (resource,) = request.resource_spans
    assert path == "/v1/traces"
    assert [span.name for scope in resource.scope_spans for span in scope.spans] == ["request"]
    attributes = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert attributes["service.instance.id"] == "router-1"
