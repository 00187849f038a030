"""The way past FastAPI: the same answers and errors, and everything else is FastAPI's."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from core.clock import SystemClock
from core.errors import OverloadedError, UnavailableError
from router.config import RouterConfig
from router.http.chat_completions import PATH, ChatCompletions
from router.http.chat_routes import chat_completions_router
from router.http.errors import install_error_handlers
from router.http.token_path import TokenPath
from router.journal.journal import Journal
from router.journal.memory_store import MemoryJournalStore
from router.text.tokenizer import TextCodec
from tests.router.http.fakes import FakeDispatcher
from tests.router.http.serving import MODEL, says

Answer = Callable[[Scope, Receive, Send], Awaitable[None]]


class Scripted:
    """Stands for `ChatCompletions`: its response is a function of the test's."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def create(self, request_id: str, _scope: Scope, _receive: Receive) -> Answer:
        self.request_id = request_id
        return self._answer


def client_of(answer: Answer, *, raises: bool = True) -> tuple[httpx.AsyncClient, Scripted]:
    completions: Any = Scripted(answer)
    app = TokenPath(PlainTextResponse("elsewhere"), completions)
    transport = httpx.ASGITransport(app, raise_app_exceptions=raises)
    return httpx.AsyncClient(transport=transport, base_url="http://router"), completions


@pytest.mark.parametrize(
    ("method", "path"), [("GET", PATH), ("POST", f"{PATH}/x"), ("POST", "/v1/models"), ("POST", f"{PATH}/")]
)
async def test_all_but_posted_conversations_are_for_the_other_application(method: str, path: str) -> None:
    client, _ = client_of(Response(status_code=204))
    async with client:
        assert (await client.request(method, path)).text == "elsewhere"
        assert (await client.post(PATH)).status_code == 204


async def test_error_before_the_answer_has_its_status_and_the_request_id() -> None:
    async def fail(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise OverloadedError("too much waits", retry_after_s=3)

    client, completions = client_of(fail)
    async with client:
        refused = await client.post(PATH)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "3")
    assert refused.headers["x-request-id"] == completions.request_id
    assert refused.json()["error"]["message"] == "too much waits"


async def test_defect_is_answered_without_its_details_and_raised_for_the_log() -> None:
    async def fail(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise RuntimeError("a secret")

    client, _ = client_of(fail)
    with pytest.raises(RuntimeError, match="a secret"):
        await client.post(PATH)
    client, _ = client_of(fail, raises=False)
    refused = await client.post(PATH)
    assert (refused.status_code, "secret" in refused.text) == (500, False)
    assert json.loads(refused.content)["error"]["code"] == "internal_error"


@pytest.mark.parametrize("error", [RuntimeError("later"), UnavailableError("later")])
async def test_error_after_the_beginning_of_an_answer_sends_nothing_more(error: Exception) -> None:
    sent: list[str] = []

    async def answer(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    async def send(message: Message) -> None:
        sent.append(message["type"])

    async def receive() -> Message:
        raise AssertionError("nothing is received here")

    completions: Any = Scripted(answer)
    scope = {"type": "http", "method": "POST", "path": PATH}
    with pytest.raises(type(error), match="later"):
        await TokenPath(PlainTextResponse(""), completions)(scope, receive, send)
    assert sent == ["http.response.start"]


async def test_fastapi_answers_alike(config: RouterConfig, codec: TextCodec) -> None:
    dispatcher, clock = FakeDispatcher(), SystemClock()
    dispatcher.script = says(codec, "Hello")
    journal = Journal(MemoryJournalStore(clock), "router", dispatcher=dispatcher, codec=codec, clock=clock)
    completions = ChatCompletions(config, journal, codec)
    app = FastAPI()
    app.include_router(chat_completions_router(completions))
    install_error_handlers(app)
    seen: list[list[tuple[int, object, set[str]]]] = []
    for each in (app, TokenPath(app, completions)):
        transport = httpx.ASGITransport(each)
        async with journal.running(), httpx.AsyncClient(transport=transport, base_url="http://router") as client:
            bodies: list[dict[str, object]] = [{}, {"max_tokens": 2}, {"temperature": 7}, {"model": "other"}]
            messages = [{"role": "user", "content": "Hi"}]
            answers = [
                await client.post(PATH, json={"model": MODEL, "messages": messages, **body}) for body in bodies
            ]
        seen.append([(answer.status_code, told(answer.json()), set(answer.headers)) for answer in answers])
    assert [status for status, _, _ in seen[0]] == [200, 200, 400, 404]
    assert seen[0] == seen[1]


def told(document: dict[str, object]) -> dict[str, object]:
    """Of an answer or an error, all but what differs from request to request."""
    return {name: value for name, value in document.items() if name not in {"id", "created"}}
