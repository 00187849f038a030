"""The client against Baton's own HTTP API, over a scripted dispatcher."""

from collections.abc import Iterator
from typing import Any

import pytest

from core.errors import OverloadedError, WorkerLostError
from core.request import GenerationRequest
from loadtest.load.chat_body import ChatBodies
from loadtest.load.client import LoadClient
from loadtest.load.conversation import Message
from loadtest.load.load_clock import RunningClock
from loadtest.load.record import RequestRecord
from loadtest.load.target import Target
from tests.loadtest.load.chunks import record
from tests.router.http.fakes import NUM_CACHED_TOKENS, Step, tokens
from tests.router.http.serving import MODEL, Api

PROMPT = [Message("user", "Say hello")]


async def ask(api: Api, headers: dict[str, str] | None = None, **fields: Any) -> tuple[RequestRecord, str, str]:  # noqa: ANN401
    """What became of one request, the answer's text, and an example of its failure."""
    asked, examples = record(), dict[str, str]()
    client = LoadClient(
        Target.parse(api.url),
        headers or {},
        ChatBodies(MODEL, "max_tokens", fields),
        tls=None,
        clock=RunningClock(),
        examples=examples,
        max_open=4,
        timeout_s=30.0,
    )
    text = await client.ask(asked, PROMPT, 64, keeps_text=True)
    client.close()
    return asked, text, examples.get(asked.error or "", "")


@pytest.mark.parametrize("headers", [{}, {"x-baton-event-ids": "off"}, {"x-baton-timing": "1"}])
async def test_answer_is_counted_as_the_router_counts_it(api: Api, headers: dict[str, str]) -> None:
    asked, text, _ = await ask(api, headers)
    assert (text, asked.error, asked.finish_reason) == ("Hello, world", None, "stop")
    assert asked.prompt_tokens is not None
    assert asked.prompt_tokens > len("Say hello")
    assert (asked.output_tokens, asked.cached_tokens) == (len("Hello, world") + 1, NUM_CACHED_TOKENS)
    assert 1 <= len(asked.chunk_s) <= asked.output_tokens


async def test_fields_of_sampling_reach_the_router(api: Api) -> None:
    await ask(api, temperature=0.5, seed=3, ignore_eos=True)
    request = api.dispatcher.next_generation().request
    assert (request.sampling.temperature, request.sampling.seed) == (0.5, 3)
    assert not request.stop_token_ids
    assert request.max_tokens == 64


async def test_refusal_is_one_of_its_status(api: Api) -> None:
    def refuse(_request: GenerationRequest) -> Iterator[Step]:
        yield OverloadedError("too much waits")

    api.dispatcher.script = refuse
    asked, _, example = await ask(api)
    assert (asked.error, asked.status, example) == ("http_429", 429, "too much waits")


async def test_failure_in_the_stream_has_its_code(api: Api) -> None:
    def fail(_request: GenerationRequest) -> Iterator[Step]:
        yield tokens(72)
        yield WorkerLostError("it died too often")

    api.dispatcher.script = fail
    asked, _, example = await ask(api)
    assert (asked.error, asked.status, example) == (WorkerLostError.code, 200, "it died too often")
    assert len(asked.chunk_s) == 1
