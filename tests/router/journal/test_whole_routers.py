"""Two whole routers over a Redis server, with workers of their own, and a client that changes to the other one."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import httpx
import pytest
from baton.v1 import worker_pb2

from core.request import FinishReason, Role
from core.token_runs import TokenRun
from router.config import RouterConfig
from router.journal import keeper
from router.process import run_router
from tests.router.fleet.scripted_worker import WAIT_S, ScriptedWorker
from tests.router.http.serving import MODEL
from tests.router.state.redis_server import RedisServer
from tests.router.test_process import register

TOKENS = (72, 73, 74, 75, 76, 77)
BODY = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Hi"}],
    "max_tokens": len(TOKENS),
    "stream": True,
    "stream_options": {"include_usage": True},
}


@dataclass
class RouterWithWorkers:
    """A running router, and the assignments that its prefill worker was given."""

    url: str
    assignments: list[worker_pb2.AssignWork]


async def play(prefill: ScriptedWorker, decode: ScriptedWorker, end: int, seen: list[worker_pb2.AssignWork]) -> None:
    """Answers each assignment with `TOKENS` from its first position to before `end`."""
    while True:
        order = await prefill.orders.get()
        if order.HasField("assign"):
            seen.append(order.assign)
            for position in range(order.assign.first_position, end):
                reason = FinishReason.LENGTH if position == len(TOKENS) - 1 else None
                token = TokenRun(order.assign.handoff_id, position, (TOKENS[position],), reason)
                (prefill if position == order.assign.first_position else decode).report(token)


@contextlib.asynccontextmanager
async def running(config: RouterConfig, name: str, end: int) -> AsyncIterator[RouterWithWorkers]:
    seen: list[worker_pb2.AssignWork] = []
    async with contextlib.AsyncExitStack() as stack:
        prefill = await stack.enter_async_context(ScriptedWorker(f"p{name}"))
        decode = await stack.enter_async_context(ScriptedWorker(f"d{name}", Role.DECODE))
        playing = asyncio.create_task(play(prefill, decode, end, seen))
        stack.callback(playing.cancel)
        addresses = await stack.enter_async_context(run_router(config))
        for worker in (prefill, decode):
            await register(addresses.cluster_port, worker)
        yield RouterWithWorkers(f"http://127.0.0.1:{addresses.http_port}/v1/chat/completions", seen)


async def next_event(lines: AsyncIterator[str]) -> tuple[str, str]:
    """Id and data of an event; one that tells an error has no id."""
    event_id = ""
    while not (line := await anext(lines)).startswith("data: "):
        event_id = line.removeprefix("id: ")
    return event_id, line.removeprefix("data: ")


def num_tokens(event_id: str) -> int:
    return int(event_id.split(":")[-2])


async def test_client_that_changes_routers_in_the_middle_of_a_stream_gets_the_rest(
    config: RouterConfig, redis_server: RedisServer
) -> None:
    shared = replace(config, port=0, grpc_port=0, request_timeout_s=WAIT_S, state=redis_server.url)
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(running(shared, "0", 3))
        other = await stack.enter_async_context(running(shared, "1", len(TOKENS)))
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=WAIT_S, trust_env=False))
        response = await stack.enter_async_context(client.stream("POST", first.url, json=BODY))
        lines = response.aiter_lines()
        last_id = ""
        while not last_id or num_tokens(last_id) < 3:
            last_id, _ = await next_event(lines)
        rest = await client.post(other.url, json=BODY, headers={"Last-Event-ID": last_id})
        event_id, said = await next_event(lines)
        assert (event_id, json.loads(said)["error"]["code"]) == ("", "request_moved")
    events = [block.partition("\ndata: ") for block in rest.text.split("\n\n")[:-1]]
    chunks = [json.loads(data) for _, _, data in events[:-1]]
    assert "assistant" not in rest.text
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"
    assert chunks[-1]["usage"]["completion_tokens"] == len(TOKENS)
    assert [num_tokens(head) for head, _, _ in events][-1] == len(TOKENS)
    assert events[-1][2] == "[DONE]"
    (assignment,) = other.assignments
    emitted = list(assignment.prompt)[len(assignment.prompt) - assignment.first_position :]
    assert emitted == list(TOKENS[: assignment.first_position])
    assert assignment.sampling.seed == first.assignments[0].sampling.seed


async def test_router_that_stops_before_its_requests_end_leaves_them_to_others(
    config: RouterConfig, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "ROUTER_LEASE_S", 0.1)  # after which a router begins to adopt
    settings = replace(config, port=0, grpc_port=0, request_timeout_s=WAIT_S, drain_timeout_s=0.0)
    shared = replace(settings, state=redis_server.url)
    client = httpx.AsyncClient(timeout=WAIT_S, trust_env=False)
    async with running(shared, "1", len(TOKENS)) as other, client:
        async with running(shared, "0", 3) as first:
            response = await client.send(client.build_request("POST", first.url, json=BODY), stream=True)
            lines = response.aiter_lines()
            while num_tokens((await next_event(lines))[0]) < 3:
                pass
        assert json.loads((await next_event(lines))[1])["error"]["code"] == "draining"
        await response.aclose()
        async with asyncio.timeout(WAIT_S):
            while not other.assignments:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
    assert 0 < other.assignments[0].first_position <= 3
