"""The client that reconnects, against a server that breaks off as a test says."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import httpx
import pytest

from deploy.bench.chaos import client
from deploy.bench.chaos.answer import Answer
from deploy.bench.chaos.client import ask
from deploy.bench.chaos.event_stream import Event, read_events
from deploy.bench.chaos.question import Kind, Question

STREAMED = Question(0, Kind.GREEDY, is_streamed=True, body={"model": "m"})
WHOLE = Question(1, Kind.SEEDED, is_streamed=False, body={"model": "m"})
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}
WORDS = ("one", " two")
ANSWER = Answer("one two", "length", 5, 2, 3)
DOCUMENT = {
    "choices": [{"message": {"content": "one two"}, "logprobs": None, "finish_reason": "length"}],
    "usage": USAGE,
}

Handle = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "RECONNECT_S", 0.0)


def chunk(text: str, event_id: str = "", finish_reason: str | None = None) -> str:
    choice = {"delta": {"content": text}, "logprobs": None, "finish_reason": finish_reason}
    named = f"id: {event_id}\n" if event_id else ""
    return f"{named}data: {json.dumps({'choices': [choice]})}\n\n"


def ending() -> str:
    return f"{chunk('', 'a:2', 'length')}data: {json.dumps({'choices': [], 'usage': USAGE})}\n\ndata: [DONE]\n\n"


@dataclass
class Broken(httpx.AsyncByteStream):
    """Some of a stream, and then the connection is gone, or only the stream at its end."""

    text: str
    is_cut: bool = True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.text.encode()
        if self.is_cut:
            raise httpx.ReadError("the router died")


@dataclass
class Server:
    """Answers one request after the other as told, and keeps them."""

    answers: list[httpx.Response | httpx.TransportError]
    requests: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, httpx.TransportError):
            raise answer
        return answer

    def http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url="http://test", transport=httpx.MockTransport(self))


def stream_of(*texts: str, is_cut: bool = False) -> httpx.Response:
    return httpx.Response(200, stream=Broken("".join(texts), is_cut=is_cut))


@pytest.mark.parametrize("is_cut", [True, False])
async def test_stream_that_breaks_off_goes_on_after_the_last_event(is_cut: bool) -> None:
    server = Server([stream_of(chunk("one", "a:1"), is_cut=is_cut), stream_of(chunk(" two", "a:2"), ending())])
    async with server.http() as http:
        asked = await ask(http, STREAMED)
    assert (asked.answer, asked.failure, asked.num_reconnects) == (ANSWER, "", 1)
    assert asked.ttft_s > 0
    assert asked.longest_pause_s > 0
    first, second = server.requests
    assert "last-event-id" not in first.headers
    assert second.headers["last-event-id"] == "a:1"
    assert first.content == second.content
    assert json.loads(first.content) == {"model": "m", "stream": True, "stream_options": {"include_usage": True}}


async def test_event_that_is_cut_in_two_is_asked_for_again() -> None:
    half = chunk(" two", "a:2").removesuffix("\n")
    server = Server([stream_of(chunk("one", "a:1"), half, is_cut=True), stream_of(chunk(" two", "a:2"), ending())])
    async with server.http() as http:
        asked = await ask(http, STREAMED)
    assert asked.answer == ANSWER
    assert server.requests[1].headers["last-event-id"] == "a:1"


async def test_stream_without_ids_begins_anew() -> None:
    server = Server([stream_of(chunk("one"), is_cut=True), stream_of(chunk("one"), chunk(" two"), ending())])
    async with server.http() as http:
        asked = await ask(http, STREAMED)
    assert asked.answer == ANSWER
    assert "last-event-id" not in server.requests[1].headers


async def test_whole_answer_is_asked_for_under_the_same_key() -> None:
    gone = httpx.RemoteProtocolError("the router died")
    server = Server([gone, httpx.ConnectError("not yet"), httpx.Response(200, json=DOCUMENT)])
    async with server.http() as http:
        asked = await ask(http, WHOLE)
    assert (asked.answer, asked.num_reconnects, asked.longest_pause_s) == (ANSWER, 2, 0.0)
    assert asked.whole_s > 0
    assert len({request.headers["idempotency-key"] for request in server.requests}) == 1


@pytest.mark.parametrize("question", [STREAMED, WHOLE])
async def test_error_is_a_failure_and_not_asked_again(question: Question) -> None:
    server = Server([httpx.Response(503, text="no decode worker")])
    async with server.http() as http:
        asked = await ask(http, question)
    assert (asked.answer, asked.failure) == (None, "status 503: no decode worker")


async def test_error_in_a_stream_is_a_failure() -> None:
    server = Server([stream_of(chunk("one", "a:1"), 'data: {"error": {"message": "it is lost"}}\n\n')])
    async with server.http() as http:
        asked = await ask(http, STREAMED)
    assert asked.answer is None
    assert "it is lost" in asked.failure


@pytest.mark.parametrize("question", [STREAMED, WHOLE])
async def test_request_that_another_router_has_is_asked_for_again(question: Question) -> None:
    moved = {"error": {"code": "request_moved", "message": "reconnect"}}
    if question is STREAMED:
        broken = stream_of(chunk("one", "a:1"), f"data: {json.dumps(moved)}\n\n")
        server = Server([broken, stream_of(chunk(" two", "a:2"), ending())])
    else:
        server = Server([httpx.Response(503, json=moved), httpx.Response(200, json=DOCUMENT)])
    async with server.http() as http:
        asked = await ask(http, question)
    assert (asked.answer, asked.failure, asked.num_reconnects) == (ANSWER, "", 1)


async def test_request_that_nobody_answers_in_time_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT_S", 0.01)

    def refuse(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("nobody listens")

    async with httpx.AsyncClient(base_url="http://test", transport=httpx.MockTransport(refuse)) as http:
        asked = await ask(http, WHOLE)
    assert asked.failure.startswith("not answered within 0.01 s")


async def test_events_are_read_by_the_standard() -> None:
    async def lines() -> AsyncIterator[str]:
        for line in (": comment", "", "id:7", "data: a", "data:b", "", "data: c", "", "data: cut off"):
            yield line

    assert [event async for event in read_events(lines())] == [Event("a\nb", "7"), Event("c", "")]
