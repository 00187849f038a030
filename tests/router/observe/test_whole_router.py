"""A whole router whose workers are scripted: what it tells, and what it must not."""

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import httpx
import openai
import pytest
import pytest_asyncio
from baton.v1 import generate_pb2, generate_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from core.errors import ConfigError
from core.events import TokenTiming
from core.logs import JsonFormatter
from core.request import FinishReason, Role
from core.token_runs import TokenRun
from router.config import RouterConfig
from router.process import RouterAddresses, run_router
from tests.router.auth.keys import add_key
from tests.router.fleet.scripted_worker import WAIT_S, ScriptedWorker
from tests.router.http.serving import MODEL
from tests.router.observe.collector import Collector
from tests.router.observe.test_traceparent import VALID
from tests.router.test_process import register, taken_port

SECRET_KEY, SECRET_PROMPT = "sk-very-secret-key", "a very secret prompt"
HEADERS = {
    "authorization": f"Bearer {SECRET_KEY}", "x-api-key": SECRET_KEY, "x-baton-timing": "True", "traceparent": VALID,
}  # fmt: skip
BODY = {"model": MODEL, "messages": [{"role": "user", "content": SECRET_PROMPT}], "max_tokens": 3}
NUM_TOKENS = 3
FIRST_TOKEN, ANSWER = 65, "bcd"


@dataclass
class Served:
    """A running router, and a client."""

    addresses: RouterAddresses
    http: httpx.AsyncClient

    async def ask(self, headers: Mapping[str, str] = HEADERS, **changes: object) -> httpx.Response:
        url = f"http://127.0.0.1:{self.addresses.http_port}/v1/chat/completions"
        return await self.http.post(url, json={**BODY, **changes}, headers=headers)

    async def metrics(self, accept: str = "text/plain") -> httpx.Response:
        url = f"http://127.0.0.1:{self.addresses.metrics_port}/metrics"
        return await self.http.get(url, headers={"accept": accept})

    async def counted(self, expected: dict[tuple[str, ...], float]) -> None:
        """Waits until so many calls have ended: a client has its answer a moment before."""
        async with asyncio.timeout(WAIT_S):
            while sum((found := await self.values("baton_router_requests_total")).values()) < sum(expected.values()):
                pass
        assert found == expected

    async def values(self, name: str) -> dict[tuple[str, ...], float]:
        """By the values of the labels, in the order of their names."""
        families = text_string_to_metric_families((await self.metrics()).text)
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return {tuple(sample.labels.values()): sample.value for sample in samples}


async def play(prefill: ScriptedWorker, decode: ScriptedWorker) -> None:
    """Answers every assignment with the tokens of `ANSWER`."""
    while True:
        order = await prefill.orders.get()
        if order.HasField("assign"):
            name, timing = order.assign.handoff_id, TokenTiming(0.0, 1e-6)
            rest = tuple(range(FIRST_TOKEN + 1, FIRST_TOKEN + NUM_TOKENS))
            prefill.report(TokenRun(name, 0, (FIRST_TOKEN,), timing=timing))
            decode.report(TokenRun(name, 1, rest, FinishReason.LENGTH, timing=timing))


@contextlib.asynccontextmanager
async def serving(config: RouterConfig) -> AsyncIterator[Served]:
    async with contextlib.AsyncExitStack() as stack:
        prefill = await stack.enter_async_context(ScriptedWorker("p0"))
        decode = await stack.enter_async_context(ScriptedWorker("d0", Role.DECODE))
        playing = asyncio.create_task(play(prefill, decode))
        stack.callback(playing.cancel)
        addresses = await stack.enter_async_context(run_router(config))
        for worker in (prefill, decode):
            await register(addresses.cluster_port, worker)
        client = httpx.AsyncClient(timeout=WAIT_S, trust_env=False)
        yield Served(addresses, await stack.enter_async_context(client))


@pytest.fixture
def telling(config: RouterConfig) -> RouterConfig:
    return replace(config, port=0, grpc_port=0, metrics_port=0, request_timeout_s=WAIT_S, placement_timeout_s=WAIT_S)


@pytest_asyncio.fixture
async def served(telling: RouterConfig) -> AsyncIterator[Served]:
    async with serving(telling) as served:
        yield served


async def test_answer_shows_in_its_header_and_in_the_metrics(served: Served) -> None:
    answer = await served.ask()
    assert answer.json()["choices"][0]["message"]["content"] == ANSWER
    timing = dict(re.findall(r"(\w+);dur=([\d.]+)", answer.headers["x-baton-timing"]))
    assert list(timing) == ["queue", "retry", "prefill", "wire", "handoff", "first_step", "decode", "ttft"]
    first = [float(timing[name]) for name in ("queue", "retry", "prefill", "wire")]
    assert sum(first) == pytest.approx(float(timing["ttft"]), abs=0.002)
    await served.counted({("http", "length", "answered"): 1})
    assert await served.values("baton_router_answer_tokens_total") == {(): NUM_TOKENS}
    assert await served.values("baton_router_workers") == {("decode",): 1, ("mixed",): 0, ("prefill",): 1}
    assert set(await served.values("baton_worker_steps_total")) == {("d0",), ("p0",)}
    assert (await served.values("process_resident_memory_bytes"))[()] > 0


async def test_stream_has_its_phases_in_a_comment_before_its_end(served: Served) -> None:
    events = (await served.ask(stream=True)).text.split("\n\n")
    comment, event_id, said = events[-2].split("\n")
    assert comment.startswith(": x-baton-timing queue;dur=")
    assert event_id.startswith("id: chatcmpl-")
    assert (said, events[-1]) == ("data: [DONE]", "")
    assert all(event.startswith("id: ") for event in events[:-2])


@pytest.mark.parametrize("wish", [None, "0", ""])
async def test_who_does_not_ask_is_not_told(served: Served, wish: str | None) -> None:
    headers = {} if wish is None else {"x-baton-timing": wish}
    for is_stream in (False, True):
        answer = await served.ask(headers, stream=is_stream)
        assert "x-baton-timing" not in {*answer.headers, *answer.text.split()}


async def test_sdk_reads_a_stream_with_phases_as_one_without(served: Served) -> None:
    base_url = f"http://127.0.0.1:{served.addresses.http_port}/v1"
    async with openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=WAIT_S) as sdk:
        for headers in ({"X-Baton-Timing": "1"}, {}):
            stream = await sdk.chat.completions.create(**BODY, stream=True, extra_headers=headers)  # type: ignore[call-overload]
            chunks = [chunk async for chunk in stream]
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
        raw = await sdk.chat.completions.with_raw_response.create(**BODY, extra_headers={"X-Baton-Timing": "1"})  # type: ignore[call-overload]
        assert raw.headers["x-baton-timing"].startswith("queue;dur=")


async def test_refused_requests_are_counted_by_reason(served: Served) -> None:
    assert (await served.ask(temperature=9)).status_code == 400
    assert (await served.ask(model="other")).status_code == 404
    await served.counted({("http", "invalid_value", "rejected"): 1, ("http", "model_not_found", "rejected"): 1})


async def test_grpc_calls_are_told_of_likewise(served: Served) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.addresses.grpc_port}") as channel:
        stub = generate_pb2_grpc.GenerateServiceStub(channel)
        request = generate_pb2.GenerateRequest(model=MODEL, text="Hi", max_tokens=NUM_TOKENS)
        call = stub.Generate(request, timeout=WAIT_S, metadata=(("x-baton-timing", "1"),))
        assert "".join([response.text async for response in call]) == ANSWER
        assert dict(await call.trailing_metadata())["x-baton-timing"].startswith("queue;dur=")
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Generate(generate_pb2.GenerateRequest(model="other", text="Hi"), timeout=WAIT_S).read()
    await served.counted({("grpc", "length", "answered"): 1, ("grpc", "model_not_found", "rejected"): 1})


async def test_openmetrics_is_served_to_who_asks_and_nothing_else_is_there(served: Served) -> None:
    answer = await served.metrics("application/openmetrics-text; version=1.0.0")
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")
    other = await served.http.get(f"http://127.0.0.1:{served.addresses.metrics_port}/v1/models")
    assert other.status_code == 404


class JsonLines(logging.Handler):
    """What the process would write, line by line."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.setFormatter(JsonFormatter("router"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    def access(self) -> list[dict[str, object]]:
        return [entry for entry in map(json.loads, self.lines) if entry["logger"] == "baton.access"]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[JsonLines]:
    handler = JsonLines()
    with caplog.at_level(logging.DEBUG):
        logging.getLogger().addHandler(handler)
        yield handler
        logging.getLogger().removeHandler(handler)


async def test_logs_tell_of_every_call_and_hold_no_key_and_no_text(served: Served, log: JsonLines) -> None:
    await served.ask()
    await served.ask(stream=True)
    await served.ask(temperature=9)
    await served.ask(messages=[{"role": SECRET_PROMPT, "content": SECRET_PROMPT}])
    await served.counted({("http", "length", "answered"): 2, ("http", "invalid_value", "rejected"): 2})
    entries = [(entry["outcome"], entry.get("answer_tokens")) for entry in log.access()]
    assert entries == [("answered", NUM_TOKENS)] * 2 + [("rejected", None)] * 2
    assert not [line for line in log.lines if SECRET_KEY in line or SECRET_PROMPT in line or f'"{ANSWER}"' in line]


async def test_lines_name_the_tenant_and_calls_without_a_good_key_are_rejections(
    telling: RouterConfig, tmp_path: Path, log: JsonLines
) -> None:
    file = tmp_path / "keys.json"
    key, wrong = add_key(file, "alice-1", tenant="alice"), "bt-nobody-has-this-one"
    request = generate_pb2.GenerateRequest(model=MODEL, text="Hi", max_tokens=NUM_TOKENS)
    async with serving(replace(telling, api_keys_file=file)) as served:
        await served.ask({"authorization": f"Bearer {key}"})
        await served.ask({"authorization": f"Bearer {wrong}"})
        async with grpc.aio.insecure_channel(f"127.0.0.1:{served.addresses.grpc_port}") as channel:
            call = generate_pb2_grpc.GenerateServiceStub(channel).Generate(
                request, timeout=WAIT_S, metadata=(("authorization", f"Bearer {wrong}"),)
            )
            with pytest.raises(grpc.aio.AioRpcError):
                await call.read()
        await served.counted(
            {
                ("http", "length", "answered"): 1,
                ("http", "invalid_api_key", "rejected"): 1,
                ("grpc", "invalid_api_key", "rejected"): 1,
            }
        )
    assert [entry.get("tenant") for entry in log.access()] == ["alice", None, None]
    assert not [line for line in log.lines if key in line or wrong in line]


async def test_line_of_a_call_has_its_id_and_the_clients_trace(served: Served, log: JsonLines) -> None:
    answer = await served.ask()
    await served.counted({("http", "length", "answered"): 1})
    (entry,) = log.access()
    assert (entry["request_id"], entry["trace_id"]) == (answer.headers["x-request-id"], VALID[3:35])


async def test_spans_reach_the_collector_with_the_clients_trace(telling: RouterConfig, collector: Collector) -> None:
    async with serving(replace(telling, otlp_endpoint=collector.url, metrics_port=None)) as served:
        assert served.addresses.metrics_port is None
        await served.ask()
    spans = [
        span
        for _, request in collector.received
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    named = {span.name for span in spans}
    assert {"request", "queue", "prefill", "handoff", "first_step"} <= named
    assert named <= {"request", "queue", "prefill", "handoff", "first_step", "decode"}  # and none of FastAPI's own
    assert {span.trace_id.hex() for span in spans} == {VALID[3:35]}


async def test_taken_metrics_port_is_a_config_error(telling: RouterConfig) -> None:
    with taken_port() as port, pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port}.*with --metrics-port$"):
        async with run_router(replace(telling, metrics_port=port)):
            pytest.fail("the port is taken")


async def test_answer_that_is_sent_again_is_a_call_with_the_first_ones_id(served: Served, log: JsonLines) -> None:
    first = await served.ask()
    url = f"http://127.0.0.1:{served.addresses.http_port}/v1/chat/completions"
    again = await served.http.get(f"{url}/{first.json()['id']}")
    assert again.json() == first.json()
    await served.counted({("http", "length", "answered"): 1, ("http", "replayed", "answered"): 1})
    entry = log.access()[-1]
    assert (entry["method"], entry["code"]) == ("GET /v1/chat/completions/{id}", "replayed")
    assert entry["request_id"] == first.headers["x-request-id"]


async def test_method_that_is_not_possible_is_a_rejection(served: Served) -> None:
    url = f"http://127.0.0.1:{served.addresses.http_port}/v1/chat/completions"
    assert (await served.http.put(url)).status_code == 405
    await served.counted({("http", "method_not_allowed", "rejected"): 1})
