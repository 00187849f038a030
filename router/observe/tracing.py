"""OpenTelemetry spans of requests, made from the times that were noted when a request has ended.

The spans of a request, each phase with the worker that did it; phases are those of `router.observe.phases`:

    request ── queue, prefill, handoff, first_step, decode

Attempts and migrations are events of the first. Nothing is exported on the event loop: a thread of OpenTelemetry's
does that, and drops spans when its queue is full. Importing this module takes 0.1 s.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from core.clock import Clock
from router.observe.request_times import RequestTimes
from router.observe.traceparent import trace_id_of

TRACES_PATH = "/v1/traces"
EXPORT_TIMEOUT_S = 3.0  # of one batch, repeated tries included; bounds how long a router takes to stop
SERVICE_NAME = "baton-router"
NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a request.

    Attributes:
        name: of the span.
        start_s: when it began, on the router's clock.
        end_s: when it ended.
        worker: who did it; empty for nobody in particular.
    """

    name: str
    start_s: float
    end_s: float
    worker: str = ""


class RequestTracer:
    """Makes spans of requests that have ended.

    Args:
        processor: gets the spans.
        clock: of the requests.
        router_id: of this router.
        wall_ns: the time of day, nanoseconds since 1970.
    """

    def __init__(
        self, processor: SpanProcessor, clock: Clock, router_id: str, wall_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._clock = clock
        self._wall_ns = wall_ns
        self._ids = _TraceIds()
        attributes = {
            "service.name": os.environ.get("OTEL_SERVICE_NAME", SERVICE_NAME),
            "service.version": version("baton"),
            "service.instance.id": router_id,
        }
        self._provider = TracerProvider(id_generator=self._ids, resource=Resource.create(attributes))
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("baton")

    def ended(self, times: RequestTimes) -> None:
        """Makes the spans of a request."""
        assert times.ended_s is not None, f"request {times.request_id} has not ended"
        offset_ns = self._wall_ns() - round(self._clock.now_s() * NS_PER_S)

        def at(moment_s: float) -> int:
            return offset_ns + round(moment_s * NS_PER_S)

        span = self._start(times, at(times.arrived_s))
        inside = trace.set_span_in_context(span, Context())
        for phase in phases_of(times):
            by = {"baton.worker": phase.worker} if phase.worker else {}
            part = self._tracer.start_span(phase.name, inside, start_time=at(phase.start_s), attributes=by)
            part.end(at(phase.end_s))
        for moment_s, name, attributes in _events(times):
            span.add_event(name, attributes, at(moment_s))
        if times.error is not None:
            span.set_attribute("error.type", times.error.code)
            span.set_status(Status(StatusCode.UNSET if times.is_given_up else StatusCode.ERROR))
        span.end(at(times.ended_s))

    def close(self) -> None:
        """Exports what is left, for a few seconds at most; blocks."""
        self._provider.shutdown()

    def _start(self, times: RequestTimes, start_ns: int) -> Span:
        # As its log lines name it: when it was resumed, `times.request_id` is that of a part of it.
        self._ids.trace_id = trace_id_of(times.tags.get("request_id", times.request_id), times.parent)
        attributes: dict[str, str | int] = {
            "baton.request_id": times.request_id,
            "baton.tenant": times.tenant,
            "baton.attempts": len(times.attempts),
            "baton.cached_tokens": times.num_cached_tokens,
            "gen_ai.usage.input_tokens": times.num_prompt_tokens,
            "gen_ai.usage.output_tokens": times.num_tokens,
        }
        if times.finish_reason is not None:
            attributes["baton.finish_reason"] = str(times.finish_reason)
        return self._tracer.start_span(
            "request", _parent_of(times), SpanKind.SERVER, start_time=start_ns, attributes=attributes
        )


class _TraceIds(RandomIdGenerator):
    """Has the trace of a request that a client began none for be the one that its log lines name."""

    trace_id = 1

    def generate_trace_id(self) -> int:
        return self.trace_id


def open_tracer(endpoint: str, clock: Clock, router_id: str) -> RequestTracer:
    """One that exports to an OTLP collector over HTTP. Other settings come from OpenTelemetry's own variables.

    Args:
        endpoint: the collector's URL, as in `OTEL_EXPORTER_OTLP_ENDPOINT`: without the path of traces.
        clock: of the requests.
        router_id: of this router.
    """
    exporter = OTLPSpanExporter(endpoint.rstrip("/") + TRACES_PATH, timeout=EXPORT_TIMEOUT_S)
    return RequestTracer(BatchSpanProcessor(exporter), clock, router_id)


def phases_of(times: RequestTimes) -> Iterator[Phase]:
    """The phases of a request that has begun to be answered, on the router's clock; none of another.

    Where workers measured, the order's way to them counts as prefill's beginning, and the rest of the ways is a gap.
    """
    phases, attempt, first_s = times.phases, times.first_attempt, times.first_s
    if phases is None or attempt is None or first_s is None or attempt.prefilled is None:
        return
    started_s = attempt.assigned_s + min(attempt.prefilled.queue_s, first_s - attempt.assigned_s - phases.prefill_s)
    yield Phase("queue", times.arrived_s, started_s)
    yield Phase("prefill", started_s, started_s + phases.prefill_s, str(attempt.prefill))
    decoding_s = first_s
    if phases.handoff_s is not None and phases.first_step_s is not None:
        ready_s = first_s + phases.handoff_s
        decoding_s = ready_s + phases.first_step_s
        yield Phase("handoff", first_s, ready_s, str(attempt.prefill))
        yield Phase("first_step", ready_s, decoding_s, str(attempt.decode))
    if times.last_s > decoding_s:
        yield Phase("decode", decoding_s, times.last_s, str(attempt.decode))


def _events(times: RequestTimes) -> Iterator[tuple[float, str, Mapping[str, str | int]]]:
    for attempt in times.attempts:
        workers = {"baton.prefill": str(attempt.prefill), "baton.decode": str(attempt.decode)}
        name = "resumed" if attempt.first_position else "placed"
        yield attempt.assigned_s, name, {**workers, "baton.first_position": attempt.first_position}
        if attempt.returned_s is not None:
            yield attempt.returned_s, "returned", {"baton.code": attempt.code}
    for moment_s, worker in times.moves:
        yield moment_s, "moved", {"baton.decode": str(worker)}


def _parent_of(times: RequestTimes) -> Context:
    parent = times.parent
    if parent is None:
        return Context()
    flags = TraceFlags(TraceFlags.SAMPLED if parent.is_sampled else TraceFlags.DEFAULT)
    remote = SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=flags)
    return trace.set_span_in_context(NonRecordingSpan(remote), Context())
