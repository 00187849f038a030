"""Phases for clients that ask; the reference for what breaks a client is the OpenAI SDK."""

from collections.abc import Callable

import httpx
import openai
import pytest

from router.observe.phases import Phases
from tests.router.http.fakes import FakeDispatcher
from tests.router.http.serving import MODEL

PHASES = Phases(0.001, 0.0, 0.002, 0.003, None, None, 0.004)
TIMING = "queue;dur=1.000, retry;dur=0.000, prefill;dur=2.000, wire;dur=3.000, decode;dur=4.000, ttft;dur=6.000"
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture
def timed(dispatcher: FakeDispatcher) -> FakeDispatcher:
    dispatcher.phases = PHASES
    return dispatcher


def post(http: httpx.Client, wish: str | None, **fields: object) -> httpx.Response:
    headers = {} if wish is None else {"X-Baton-Timing": wish}
    return http.post("/v1/chat/completions", json={**BODY, **fields}, headers=headers)


@pytest.mark.usefixtures("timed")
def test_whole_answer_has_a_header_for_who_asks(http: httpx.Client) -> None:
    assert post(http, "1").headers["x-baton-timing"] == TIMING
    for wish in ("0", "", None):
        assert "x-baton-timing" not in post(http, wish).headers


@pytest.mark.usefixtures("timed")
def test_stream_has_a_comment_before_its_end_for_who_asks(http: httpx.Client) -> None:
    events = post(http, "true", stream=True).text.split("\n\n")
    assert events.pop() == ""
    assert events[-1].startswith(f": x-baton-timing {TIMING}\nid: chatcmpl-")
    assert events[-1].endswith("\ndata: [DONE]")
    assert all(event.startswith("id: ") for event in events[:-1])
    assert ": " not in {event[:2] for event in post(http, None, stream=True).text.split("\n\n")}


def test_answer_whose_phases_nobody_knows_has_none(http: httpx.Client) -> None:
    assert "x-baton-timing" not in post(http, "1").headers
    assert "x-baton-timing" not in post(http, "1", stream=True).text


@pytest.mark.usefixtures("timed")
def test_sdk_reads_a_stream_with_phases_as_one_without(
    sdk: openai.OpenAI, ask: Callable[..., httpx.Response]
) -> None:
    def texts(**options: object) -> list[str | None]:
        stream = sdk.chat.completions.create(**BODY, stream=True, **options)  # type: ignore[call-overload]
        return [choice.delta.content for chunk in stream for choice in chunk.choices]

    assert "".join(text or "" for text in texts(extra_headers={"x-baton-timing": "1"})) == "Hello, world"
    assert "".join(text or "" for text in texts()) == "Hello, world"
    raw = sdk.chat.completions.with_raw_response.create(**BODY, extra_headers={"x-baton-timing": "1"})  # type: ignore[call-overload]
    assert raw.headers["x-baton-timing"] == TIMING
    assert "x-baton-timing" not in ask().headers
