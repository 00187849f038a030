import asyncio
import contextlib
import gc
import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import httpx
import pytest
from baton.v1 import control_pb2, control_pb2_grpc, generate_pb2, generate_pb2_grpc

from core.errors import CheckpointError, ConfigError
from core.request import FinishReason, Role
from core.token_runs import TokenRun
from deploy.free_port import free_port
from router import process, wire
from router.config import RouterConfig
from router.departure import RouterDeparture
from router.process import run_router
from router.state import open_state
from router.state.redis_state import RedisState
from tests.router.fleet.scripted_worker import WAIT_S, ScriptedWorker
from tests.router.http.serving import MODEL

MISSING = "no prefill and no decode worker is attached yet"


@pytest.fixture
def free_ports(config: RouterConfig) -> RouterConfig:
    return replace(
        config, port=0, grpc_port=0, request_timeout_s=WAIT_S, placement_timeout_s=WAIT_S, drain_timeout_s=0.0
    )


async def get(port: int, path: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_S, trust_env=False) as client:
        return await client.get(path)


async def ask(port: int) -> httpx.Response:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_S, trust_env=False) as client:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
        return await client.post("/v1/chat/completions", json=body)


async def get_status(port: int) -> control_pb2.GetStatusResponse:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = control_pb2_grpc.ControlServiceStub(channel)
        return await stub.GetStatus(control_pb2.GetStatusRequest(), timeout=WAIT_S)


async def register(port: int, worker: ScriptedWorker) -> None:
    """Registers a worker, and waits until the router's stream is there."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        request = control_pb2.RegisterWorkerRequest(endpoint=wire.endpoint_to_proto(worker.endpoint))
        await control_pb2_grpc.MembershipServiceStub(channel).RegisterWorker(request, timeout=WAIT_S)
    await asyncio.wait_for(worker.attaching.get(), WAIT_S)


async def test_router_without_workers_lives_and_says_what_is_missing(free_ports: RouterConfig) -> None:
    async with run_router(free_ports) as addresses:
        assert (await get(addresses.http_port, "/health")).status_code == 200
        ready = await get(addresses.http_port, "/ready")
        assert (ready.status_code, ready.json()["error"]["message"]) == (503, MISSING)
        models = await get(addresses.http_port, "/v1/models")
        assert [model["id"] for model in models.json()["data"]] == [MODEL]
        status = await get_status(addresses.grpc_port)
        assert (status.model, status.unready_reason, len(status.workers)) == (MODEL, MISSING, 0)


async def test_router_with_both_roles_is_ready_until_it_is_left(free_ports: RouterConfig) -> None:
    async with ScriptedWorker("p0") as prefill, ScriptedWorker("d0", Role.DECODE) as decode:
        async with run_router(free_ports) as addresses:
            for worker in (prefill, decode):
                await register(addresses.cluster_port, worker)
            async with asyncio.timeout(WAIT_S):
                while (await get(addresses.http_port, "/ready")).status_code != 200:
                    pass
            assert len((await get_status(addresses.grpc_port)).workers) == 2
        for worker in (prefill, decode):
            await asyncio.wait_for(worker.detached.get(), WAIT_S)


async def test_two_routers_run_side_by_side(free_ports: RouterConfig) -> None:
    async with run_router(free_ports) as first, run_router(free_ports) as second:
        ports = {port for each in (first, second) for port in (each.http_port, each.grpc_port, each.cluster_port)}
        assert len(ports) == 6
        for addresses in (first, second):
            assert (await get(addresses.http_port, "/health")).status_code == 200
            assert (await get_status(addresses.grpc_port)).model == MODEL


async def test_routers_share_both_ports_and_each_has_its_own_for_workers(free_ports: RouterConfig) -> None:
    shared = replace(free_ports, reuse_port=True)
    async with run_router(shared) as first:
        same = replace(shared, port=first.http_port, grpc_port=first.grpc_port)
        async with run_router(same) as second:
            assert (second.http_port, second.grpc_port) == (first.http_port, first.grpc_port)
            assert second.cluster_port != first.cluster_port
        assert (await get(first.http_port, "/health")).status_code == 200
        assert (await get_status(first.grpc_port)).model == MODEL


async def test_port_of_a_router_that_does_not_share_it_is_taken(free_ports: RouterConfig) -> None:
    async with run_router(free_ports) as first:
        for taken in ({"port": first.http_port}, {"grpc_port": first.grpc_port}):
            with pytest.raises(ConfigError, match="choose another with --"):
                async with run_router(replace(free_ports, reuse_port=True, **taken)):
                    pass


async def test_leaving_ends_calls_and_closes_both_ports(free_ports: RouterConfig) -> None:
    before = asyncio.all_tasks()
    async with run_router(free_ports) as addresses:
        reading = asyncio.create_task(read_answer(addresses.grpc_port))
        async with asyncio.timeout(WAIT_S):
            while not (await get_status(addresses.grpc_port)).active_requests:
                pass
    error = await asyncio.wait_for(reading, WAIT_S)
    assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    for port in (addresses.http_port, addresses.grpc_port, addresses.cluster_port):
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
    assert asyncio.all_tasks() == before


async def test_request_under_way_ends_while_the_router_leaves(free_ports: RouterConfig) -> None:
    config = replace(free_ports, drain_timeout_s=WAIT_S)
    async with ScriptedWorker("p0") as prefill, ScriptedWorker("d0", Role.DECODE) as decode:
        async with run_router(config) as addresses:
            for worker in (prefill, decode):
                await register(addresses.cluster_port, worker)
            asking = asyncio.create_task(ask(addresses.http_port))
            order = await asyncio.wait_for(prefill.orders.get(), WAIT_S)
            last = TokenRun(order.assign.handoff_id, 0, (7,), FinishReason.STOP)
            asyncio.get_running_loop().call_later(0.1, prefill.report, last)
        answer = await asyncio.wait_for(asking, WAIT_S)
    assert (answer.status_code, answer.json()["choices"][0]["finish_reason"]) == (200, "stop")


async def test_request_that_does_not_end_in_time_is_told_that_the_router_left(free_ports: RouterConfig) -> None:
    async with run_router(free_ports) as addresses:
        asking = asyncio.create_task(ask(addresses.http_port))
        async with asyncio.timeout(WAIT_S):
            while not (await get_status(addresses.grpc_port)).active_requests:
                pass
    answer = await asyncio.wait_for(asking, WAIT_S)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "draining")
    assert "had not ended after 0 s; send it again" in answer.json()["error"]["message"]


async def test_router_is_not_ready_from_the_order_to_leave_on_that_comes_over_its_cluster_port(
    free_ports: RouterConfig,
) -> None:
    departure = RouterDeparture(WAIT_S)
    async with run_router(free_ports, departure) as addresses:
        status = await get_status(addresses.grpc_port)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{addresses.cluster_port}") as channel:
            stub = control_pb2_grpc.MembershipServiceStub(channel)
            await stub.LeaveRouter(control_pb2.LeaveRouterRequest(drain_timeout_s=5.0), timeout=WAIT_S)
        await asyncio.wait_for(departure.wait_ordered(), WAIT_S)
        assert departure.timeout_s == 5.0
        ready = await get(addresses.http_port, "/ready")
        assert (ready.status_code, ready.json()["error"]["code"]) == (503, "draining")
        assert status.router_id


async def test_page_that_looks_at_the_dashboard_is_let_go_when_the_router_stops(free_ports: RouterConfig) -> None:
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=WAIT_S, trust_env=False))
        async with run_router(free_ports) as addresses:
            url = f"http://127.0.0.1:{addresses.http_port}/dashboard/events"
            events = await stack.enter_async_context(client.stream("GET", url))
            lines = events.aiter_lines()
            while not (line := await anext(lines)).startswith("data: "):
                pass
            assert json.loads(line.removeprefix("data: "))["workers"] == []
        assert [line async for line in lines if not line.startswith("data: ")]  # ends as it should, not cut off


async def read_answer(port: int) -> grpc.aio.AioRpcError:
    """Asks for an answer that waits for workers; returns how the call ends."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        request = generate_pb2.GenerateRequest(model=MODEL, text="Hi")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await generate_pb2_grpc.GenerateServiceStub(channel).Generate(request, timeout=WAIT_S).read()
        return caught.value


@contextlib.contextmanager
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("setting", "flag"), [("port", "--port"), ("grpc_port", "--grpc-port"), ("cluster_port", "--cluster-port")]
)
async def test_taken_port_is_a_config_error_and_leaves_nothing_open(
    free_ports: RouterConfig, setting: str, flag: str
) -> None:
    with taken_port() as port, pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port}.*choose another with {flag}$"):
        async with run_router(replace(free_ports, **{setting: port})):
            pytest.fail("the port is taken")
    gc.collect()  # a socket left open is a warning, and warnings are errors


async def test_failed_start_frees_the_http_port(free_ports: RouterConfig) -> None:
    first = free_port("127.0.0.1")
    with taken_port() as second, pytest.raises(ConfigError):
        async with run_router(replace(free_ports, port=first, grpc_port=second)):
            pytest.fail("the port is taken")
    async with run_router(replace(free_ports, port=first)) as addresses:
        assert addresses.http_port == first


async def test_context_longer_than_the_models_is_a_config_error(free_ports: RouterConfig) -> None:
    with pytest.raises(ConfigError, match="max_model_len is 8193; the model's context is 8192 tokens"):
        async with run_router(replace(free_ports, max_model_len=8193)):
            pytest.fail("the model has no such context")


async def test_folder_without_a_tokenizer_is_a_checkpoint_error(free_ports: RouterConfig, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        async with run_router(replace(free_ports, model_dir=tmp_path)):
            pytest.fail("there is no tokenizer")


async def test_router_serves_while_its_store_of_state_is_away_and_closes_it(
    free_ports: RouterConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port("127.0.0.1")
    closed = []

    class WatchedState(RedisState):
        async def close(self) -> None:
            await super().close()
            closed.append(self)

    monkeypatch.setattr(open_state, "RedisState", WatchedState)
    async with run_router(replace(free_ports, state=f"redis://127.0.0.1:{port}")) as addresses:
        assert (await get(addresses.http_port, "/health")).status_code == 200
        assert not closed
    assert len(closed) == 1


async def test_call_that_is_no_request_yet_is_answered_while_the_router_leaves(
    free_ports: RouterConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []
    build = process.build_observation
    monkeypatch.setattr(process, "build_observation", lambda *given: built.append(build(*given)) or built[0])
    async with run_router(replace(free_ports, drain_timeout_s=WAIT_S)) as addresses:
        reader, writer = await asyncio.open_connection("127.0.0.1", addresses.http_port)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{")
        async with asyncio.timeout(WAIT_S):
            while not built[0].calls.num_open:  # noqa: ASYNC110 - a call that begins tells nobody
                await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.1, writer.write, b"}")
    assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
    writer.close()
    await writer.wait_closed()
