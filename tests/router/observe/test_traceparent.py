"""The reference is OpenTelemetry's own reader of the header."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from router.observe.traceparent import TraceParent, trace_id_of

VALID = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def of_opentelemetry(header: str) -> TraceParent | None:
    context = TraceContextTextMapPropagator().extract({"traceparent": header})
    found = trace.get_current_span(context).get_span_context()
    return TraceParent(found.trace_id, found.span_id, found.trace_flags.sampled) if found.is_valid else None


def hexadecimal(num_chars: int) -> st.SearchStrategy[str]:
    return st.text("0123456789abcdef", min_size=num_chars, max_size=num_chars) | st.just("0" * num_chars)


headers = st.builds(
    "-".join,
    st.tuples(
        st.sampled_from(["00", "01", "ff", "0g"]),
        hexadecimal(32),
        hexadecimal(16),
        st.sampled_from(["00", "01", "03"]),
    ).flatmap(lambda parts: st.sampled_from([parts, (*parts, "more")])),
)


@pytest.mark.parametrize("flags", ["00", "01"])
def test_header_names_trace_span_and_whether_it_is_sampled(flags: str) -> None:
    parent = TraceParent.parse(VALID[:-2] + flags)
    assert parent == TraceParent(0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7, flags == "01")


@given(headers | st.text(max_size=60))
def test_header_is_read_as_opentelemetry_reads_it(header: str) -> None:
    assert TraceParent.parse(header) == of_opentelemetry(header)


@pytest.mark.parametrize("header", [None, "", VALID.upper(), VALID + "-x" * 300, VALID.replace("a", "٣")])
def test_header_that_is_none_or_not_valid_is_no_parent(header: str | None) -> None:
    assert TraceParent.parse(header) is None


def test_trace_of_a_request_is_its_clients_or_one_that_every_router_finds() -> None:
    parent = TraceParent.parse(VALID)
    assert parent is not None
    assert trace_id_of("r1", parent) == parent.trace_id
    own = trace_id_of("r1", None)
    assert own == trace_id_of("r1", None) != trace_id_of("r2", None)
    assert 0 < own < 1 << 128
