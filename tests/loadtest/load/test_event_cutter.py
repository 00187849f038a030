"""Events are those that OpenAI's own client cuts, however the bytes come."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai._streaming import SSEDecoder

from loadtest.load import event_cutter
from loadtest.load.event_cutter import EventCutter, EventTooLongError

LINES = st.sampled_from(
    [
        b"", b"data: {}", b"data:x", b"data", b"data:", b": comment", b"id: 7", b"event: error", b"data:  two spaces",
        b"data: a:b", "data: ü".encode(), b"retry: 3", b"database: 1",
    ]
)  # fmt: skip
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
STREAMS = st.lists(st.tuples(LINES, ENDS), max_size=30).map(lambda lines: b"".join(map(b"".join, lines)))


def openai_events(stream: bytes) -> list[bytes]:
    """Of a stream that ends with an empty line. OpenAI's client also gives events without data, which are none."""
    return [event.data.encode() for event in SSEDecoder().iter_bytes(iter([stream])) if event.data]


@given(STREAMS, st.lists(st.integers(0, 400)))
def test_events_are_those_of_openai_wherever_the_stream_is_cut(stream: bytes, cuts: list[int]) -> None:
    whole = stream + b"\n\n"
    cutter, bounds = EventCutter(), [0, *sorted(cuts), len(whole)]
    pieces = [whole[start:end] for start, end in itertools.pairwise(bounds)]
    events = [event for piece in [*pieces, whole[max(bounds) :]] for event in cutter.feed(piece)]
    assert [event for event in events if event] == openai_events(whole)


def test_every_way_to_cut_a_stream_in_two_gives_the_same_events() -> None:
    stream = b"data: one\r\n\r\nid: 2\ndata: two\ndata: more\n\n: comment\n\ndata: [DONE]\n\n"
    for position in range(len(stream) + 1):
        cutter = EventCutter()
        assert cutter.feed(stream[:position]) + cutter.feed(stream[position:]) == [b"one", b"two\nmore", b"[DONE]"]


def test_event_without_its_empty_line_is_none() -> None:
    assert EventCutter().feed(b"data: one\n") == []


def test_event_without_an_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_cutter, "MAX_EVENT_BYTES", 10)
    cutter = EventCutter()
    assert cutter.feed(b"data: 1234") == []
    with pytest.raises(EventTooLongError):
        cutter.feed(b"5")
