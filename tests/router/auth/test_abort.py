"""Who may end a request: its own tenant, over either API, and nobody else."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from baton.v1 import generate_pb2, generate_pb2_grpc

from router.config import RouterConfig
from tests.router.auth.keys import add_key
from tests.router.auth.test_gate import CHAT_BODY, Guarded, serving
from tests.router.fleet.scripted_worker import WAIT_S
from tests.router.http.serving import MODEL

PATH = "/v1/chat/completions"


@pytest_asyncio.fixture
async def guarded(config: RouterConfig, tmp_path: Path) -> AsyncIterator[Guarded]:
    """A router without workers, at which requests wait."""
    file = tmp_path / "keys.json"
    keys = {
        "alice": add_key(file, "alice", tenant="team"),
        "anna": add_key(file, "anna", tenant="team"),
        "bob": add_key(file, "bob"),
    }
    settings = replace(config, port=0, grpc_port=0, placement_timeout_s=WAIT_S, api_keys_file=file)
    async with serving(settings, keys) as guarded:
        yield guarded


def metadata(guarded: Guarded, name: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {guarded.keys[name]}"),)


async def waiting_call(guarded: Guarded) -> tuple[grpc.aio.UnaryStreamCall, str]:
    """A request of alice's that waits for a worker, and its id."""
    stub = generate_pb2_grpc.GenerateServiceStub(guarded.channel)
    request = generate_pb2.GenerateRequest(model=MODEL, text="Hi", request_id="mine")
    call = stub.Generate(request, metadata=metadata(guarded, "alice"), timeout=WAIT_S)
    return call, str(dict(await call.initial_metadata())["x-request-id"])


async def test_tenant_ends_its_request_over_grpc_and_nobody_else_does(guarded: Guarded) -> None:
    call, request_id = await waiting_call(guarded)
    stub = generate_pb2_grpc.GenerateServiceStub(guarded.channel)
    message = generate_pb2.AbortRequestRequest(request_id=request_id)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.AbortRequest(message, metadata=metadata(guarded, "bob"), timeout=WAIT_S)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    await stub.AbortRequest(message, metadata=metadata(guarded, "anna"), timeout=WAIT_S)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.CANCELLED


async def test_tenant_ends_its_request_over_http_by_its_name_and_nobody_else_does(guarded: Guarded) -> None:
    call, _ = await waiting_call(guarded)
    headers = {name: {"authorization": f"Bearer {key}"} for name, key in guarded.keys.items()}
    assert (await guarded.http.delete(f"{PATH}/mine", headers=headers["bob"])).status_code == 404
    assert (await guarded.http.delete(f"{PATH}/mine")).status_code == 401
    taken = await guarded.http.post(PATH, json={**CHAT_BODY, "request_id": "mine"}, headers=headers["anna"])
    assert (taken.status_code, taken.json()["error"]["param"]) == (400, "request_id")
    assert (await guarded.http.delete(f"{PATH}/mine", headers=headers["anna"])).status_code == 200
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.CANCELLED
