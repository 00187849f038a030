"""A client that gets its answer whatever happens to the connection: it reconnects, and asks for the rest.

Streams go on after the event that came last (`Last-Event-ID`); whole answers are asked for again under the same key
(`Idempotency-Key`). Whether anything was lost, repeated or changed on the way is for others to say.
"""

import asyncio
import json
import time
import uuid
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx

from core.errors import UnavailableError
from deploy.bench.chaos.answer import Answer, StreamedAnswer, whole_answer
from deploy.bench.chaos.event_stream import Event, read_events
from deploy.bench.chaos.question import Question

PATH = "/v1/chat/completions"
MOVED = "request_moved"  # code of the error that tells a client to reconnect: another router has its request now
DONE = "[DONE]"
RECONNECT_S = 0.1  # a router that died just now needs so long to be off the port
TIMEOUT_S = 120.0  # of one answer with everything that happens to it; the longest fault takes a quarter of that
READ_TIMEOUT_S = 30.0  # without a byte; a router that was stopped is given up then


class MovedError(UnavailableError):
    """This router does not answer the request any more; another one does."""


@dataclass(slots=True)
class Asked:
    """What became of one question. Times are seconds.

    Attributes:
        question: that was asked.
        answer: None when it failed.
        failure: why; empty when it did not.
        status: of the HTTP response that was the failure; 0 without one.
        ttft_s: from asking to the first text; 0 until there is any.
        longest_pause_s: between two pieces of text of a stream.
        whole_s: from asking to an answer in one piece; 0 until it is there.
        num_reconnects: connections after the first.
    """

    question: Question
    answer: Answer | None = None
    failure: str = ""
    status: int = 0
    ttft_s: float = 0.0
    longest_pause_s: float = 0.0
    whole_s: float = 0.0
    num_reconnects: int = 0


async def ask(http: httpx.AsyncClient, question: Question) -> Asked:
    """Asks, and asks again on a new connection until the answer is complete. A failure is a result, too."""
    asked = Asked(question)
    attempt = _Stream(http, asked) if question.is_streamed else _Whole(http, asked)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            while not await _connected(attempt):
                asked.num_reconnects += 1
                await asyncio.sleep(RECONNECT_S)
    except TimeoutError:
        asked.failure = f"not answered within {TIMEOUT_S:g} s, with {asked.num_reconnects} reconnects"
    except UnavailableError as error:
        asked.failure = str(error)
    return asked


async def _connected(attempt: "_Stream | _Whole") -> bool:
    """One connection; whether the answer is complete with it.

    Raises:
        UnavailableError: the server says that there will be none.
    """
    try:
        return await attempt.connect()
    except (httpx.TransportError, MovedError):
        return False


class _Whole:
    """An answer in one piece, under a key of its own."""

    def __init__(self, http: httpx.AsyncClient, asked: Asked) -> None:
        self._http = http
        self._asked = asked
        self._headers = {"Idempotency-Key": uuid.uuid4().hex}
        self._sent_s = time.perf_counter()

    async def connect(self) -> bool:
        response = await self._http.post(PATH, json=self._asked.question.sent(), headers=self._headers)
        check_status(response, self._asked)
        self._asked.answer = whole_answer(response.json())
        self._asked.whole_s = time.perf_counter() - self._sent_s
        return True


class _Stream:
    """An answer in events, over one connection after the other."""

    def __init__(self, http: httpx.AsyncClient, asked: Asked) -> None:
        self._http = http
        self._asked = asked
        self._answer = StreamedAnswer()
        self._last_event_id = ""
        self._heard_s = self._sent_s = time.perf_counter()

    async def connect(self) -> bool:
        headers = {"Last-Event-ID": self._last_event_id} if self._last_event_id else {}
        if not headers:
            self._answer = StreamedAnswer()  # nothing that came can be named: it comes again from its beginning
        body = self._asked.question.sent()
        async with self._http.stream("POST", PATH, json=body, headers=headers) as response:
            if response.is_error:
                await response.aread()
            check_status(response, self._asked)
            async for event in read_events(response.aiter_lines()):
                if event.data == DONE:
                    self._asked.answer = self._answer.ended()
                    return True
                self._take(event)
        return False

    def _take(self, event: Event) -> None:
        chunk = json.loads(event.data)
        if "error" in chunk:
            raise failure_of(chunk, f"the stream ended with {chunk['error']}")
        self._last_event_id = event.event_id or self._last_event_id
        if self._answer.add(chunk):
            self._hear_text()

    def _hear_text(self) -> None:
        now_s = time.perf_counter()
        if not self._asked.ttft_s:
            self._asked.ttft_s = now_s - self._sent_s
        else:
            self._asked.longest_pause_s = max(self._asked.longest_pause_s, now_s - self._heard_s)
        self._heard_s = now_s


def check_status(response: httpx.Response, asked: Asked) -> None:
    """Makes sure that a response is an answer, or the beginning of one; notes the status of any other.

    Raises:
        MovedError: it says that another router answers.
        UnavailableError: it is another error, whose body has been read.
    """
    if response.status_code != HTTPStatus.OK:
        asked.status = response.status_code
        is_json = response.headers.get("content-type") == "application/json"
        raise failure_of(response.json() if is_json else {}, f"status {response.status_code}: {response.text}")


def failure_of(document: dict[str, Any], message: str) -> UnavailableError:
    """What an error document of the API means to this client."""
    code = document.get("error", {}).get("code")
    return MovedError(message) if code == MOVED else UnavailableError(message)
