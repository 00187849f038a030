"""Who may do what, over HTTP and gRPC, at a router with real front ends."""

import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio
from baton.v1 import control_pb2, control_pb2_grpc, generate_pb2, generate_pb2_grpc

from core.clock import ManualClock
from core.errors import ERROR_CODE_KEY, RETRY_AFTER_KEY
from router.auth import http_gate, rpc_gate
from router.auth.failed_attempts import FailedAttempts
from router.auth.gate import Need
from router.config import RouterConfig
from router.process import run_router
from tests.router.auth.keys import CHAT, OPERATOR, add_key
from tests.router.fleet.scripted_worker import WAIT_S
from tests.router.http.serving import MODEL

OPERATOR_KEY = "0123456789abcdef-operator"


@dataclass(frozen=True)
class Guarded:
    """A router whose API keys are those of a file."""

    http: httpx.AsyncClient
    channel: grpc.aio.Channel
    keys: dict[str, str]

    async def get(self, path: str, name: str | None = None) -> httpx.Response:
        return await self.http.get(path, headers=self._headers(name))

    async def post(self, path: str, body: dict[str, Any], name: str | None = None) -> httpx.Response:
        return await self.http.post(path, json=body, headers=self._headers(name))

    async def call(self, method: str, request: Any, name: str | None = None) -> Any:  # noqa: ANN401
        stub = control_pb2_grpc.ControlServiceStub(self.channel)
        call = getattr(stub, method)(request, metadata=self._metadata(name), timeout=WAIT_S)
        return await (call.read() if isinstance(call, grpc.aio.UnaryStreamCall) else call)

    async def generate(self, name: str | None = None) -> Any:  # noqa: ANN401
        stub = generate_pb2_grpc.GenerateServiceStub(self.channel)
        request = generate_pb2.GenerateRequest(model=MODEL, text="Hi")
        return await stub.Generate(request, metadata=self._metadata(name), timeout=WAIT_S).read()

    def _headers(self, name: str | None) -> dict[str, str]:
        return {} if name is None else {"authorization": f"Bearer {self.keys[name]}"}

    def _metadata(self, name: str | None) -> tuple[tuple[str, str], ...]:
        return () if name is None else (("authorization", f"Bearer {self.keys[name]}"),)


@contextlib.asynccontextmanager
async def serving(config: RouterConfig, keys: dict[str, str]) -> AsyncIterator[Guarded]:
    async with contextlib.AsyncExitStack() as stack:
        addresses = await stack.enter_async_context(run_router(config))
        url = f"http://127.0.0.1:{addresses.http_port}"
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=WAIT_S, trust_env=False))
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{addresses.grpc_port}")
        yield Guarded(http, await stack.enter_async_context(channel), keys)


@pytest_asyncio.fixture
async def guarded(config: RouterConfig, tmp_path: Path) -> AsyncIterator[Guarded]:
    file = tmp_path / "keys.json"
    keys = {
        "alice": add_key(file, "alice"),
        "ops": add_key(file, "ops", OPERATOR),
        "both": add_key(file, "both", (*CHAT, *OPERATOR)),
        "slow": add_key(file, "slow", requests_per_minute=1),
        "operator": OPERATOR_KEY,
        "nobody": "bt-nobody-has-this-one",
    }
    settings = replace(
        config, port=0, grpc_port=0, placement_timeout_s=0.01, api_keys_file=file, operator_key=OPERATOR_KEY
    )
    async with serving(settings, keys) as guarded:
        yield guarded


CHAT_BODY = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize("path", ["/health", "/openapi.json", "/dashboard", "/dashboard/dashboard.js"])
async def test_what_tells_nothing_is_open(guarded: Guarded, path: str) -> None:
    assert (await guarded.get(path)).status_code == 200


@pytest.mark.parametrize(
    "path", ["/v1/models", f"/v1/models/{MODEL}", "/v1/nothing", "/metrics", "/dashboard/events"]
)
@pytest.mark.parametrize("name", [None, "nobody"])
async def test_everything_else_over_http_needs_a_key(guarded: Guarded, path: str, name: str | None) -> None:
    response = await guarded.get(path, name)
    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    error = response.json()["error"]
    assert (error["code"], error["type"], error["param"]) == ("invalid_api_key", "invalid_request_error", None)
    assert guarded.keys["nobody"] not in response.text


async def test_chat_needs_the_scope_chat(guarded: Guarded) -> None:
    path = "/v1/chat/completions"
    # Without workers an accepted request ends with 503.
    assert [(await guarded.post(path, CHAT_BODY, name)).status_code for name in ("alice", "both")] == [503, 503]
    refused = await guarded.post(path, CHAT_BODY, "ops")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "permission_denied")
    assert refused.json()["error"]["message"] == "the key ops has the scope operator; this needs chat"
    assert (await guarded.post(path, CHAT_BODY)).status_code == 401


async def test_orders_need_the_scope_operator_and_are_logged_under_the_keys_name(guarded: Guarded) -> None:
    path, body = "/dashboard/roles/auto", {"is_auto": False}
    assert (await guarded.post(path, body, "alice")).status_code == 403
    assert (await guarded.post(path, body)).status_code == 401
    for name in ("ops", "operator"):
        assert (await guarded.post(path, body, name)).status_code == 200
    request = control_pb2.SetAutoRolesRequest(is_auto=True, actor="the boss")
    await guarded.call("SetAutoRoles", request, "both")
    log = await guarded.call("ListOperatorActions", control_pb2.ListOperatorActionsRequest(), "ops")
    assert [action.actor for action in log.actions] == [
        "both (the boss)", "operator (dashboard@127.0.0.1)", "ops (dashboard@127.0.0.1)",
    ]  # fmt: skip


@pytest.mark.parametrize("name", [None, "nobody", "alice"])
async def test_every_call_of_the_control_service_needs_an_operator(guarded: Guarded, name: str | None) -> None:
    methods = control_pb2.DESCRIPTOR.services_by_name["ControlService"].methods
    for method in methods:
        request = getattr(control_pb2, method.input_type.name)()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await guarded.call(method.name, request, name)
        expected = grpc.StatusCode.PERMISSION_DENIED if name == "alice" else grpc.StatusCode.UNAUTHENTICATED
        assert caught.value.code() is expected, method.name


async def test_generating_over_grpc_needs_the_scope_chat(guarded: Guarded) -> None:
    codes = {}
    for name in (None, "nobody", "ops", "alice"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await guarded.generate(name)
        codes[name] = caught.value.code().name
    assert codes == {
        None: "UNAUTHENTICATED", "nobody": "UNAUTHENTICATED", "ops": "PERMISSION_DENIED", "alice": "UNAVAILABLE",
    }  # fmt: skip


async def test_limit_holds_over_http_and_grpc_together(guarded: Guarded) -> None:
    assert (await guarded.post("/v1/chat/completions", CHAT_BODY, "slow")).status_code == 503
    limited = await guarded.post("/v1/chat/completions", CHAT_BODY, "slow")
    assert (limited.status_code, limited.json()["error"]["code"]) == (429, "rate_limited")
    assert 1 <= int(limited.headers["retry-after"]) <= 60
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await guarded.generate("slow")
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    metadata = dict(caught.value.trailing_metadata() or ())
    assert metadata[ERROR_CODE_KEY] == "rate_limited"
    assert 1 <= int(metadata[RETRY_AFTER_KEY]) <= 60
    assert (await guarded.get("/v1/models", "slow")).status_code == 200


async def test_unknown_grpc_method_is_unknown_with_and_without_a_key(guarded: Guarded) -> None:
    for metadata in (None, guarded._metadata("ops")):
        call = guarded.channel.unary_unary("/baton.v1.ControlService/Nothing")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", metadata=metadata, timeout=WAIT_S)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_without_a_file_everybody_may_do_what_they_could(config: RouterConfig) -> None:
    settings = replace(config, port=0, grpc_port=0, operator_key=OPERATOR_KEY)
    async with serving(settings, {"any": "none", "operator": OPERATOR_KEY}) as free:
        for name in (None, "any"):
            assert (await free.get("/v1/models", name)).status_code == 200
            await free.call("SetAutoRoles", control_pb2.SetAutoRolesRequest(is_auto=False, actor="me"), name)
            assert (await free.post("/dashboard/roles/auto", {"is_auto": True}, name)).status_code == 401
        assert (await free.post("/dashboard/roles/auto", {"is_auto": True}, "operator")).status_code == 200


@pytest.mark.parametrize(
    "path", ["//v1/models", "/V1/models", "/v1", "/dashboard/roles", "/dashboard/../v1", "", "*"]
)
def test_path_that_is_no_route_needs_an_operators_key(path: str) -> None:
    assert http_gate.need_of(path) is Need.OPERATOR


def test_method_that_is_not_known_needs_an_operators_key() -> None:
    assert rpc_gate.need_of("/baton.v1.GenerateService/Generate") is Need.CHAT
    for method in ("/baton.v1.ControlService/GetStatus", "/baton.v1.NewService/Do", "", "/x"):
        assert rpc_gate.need_of(method) is Need.OPERATOR


async def test_failed_attempt_over_http_is_logged_with_the_peer_and_never_the_key(
    guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    await guarded.get("/v1/models?key=bt-x", "nobody")
    (line,) = caplog.messages
    assert line.startswith("refused GET '/v1/models' of 127.0.0.1: this key is not known here")
    assert "bt-" not in line


async def test_failed_attempt_over_grpc_is_logged_with_the_peer_and_never_the_key(
    guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await guarded.generate("nobody")
    (line,) = caplog.messages
    assert line.startswith("refused /baton.v1.GenerateService/Generate of ipv4:127.0.0.1:")
    assert "bt-" not in line


async def test_call_that_shows_two_keys_shows_none(guarded: Guarded) -> None:
    twice = [("authorization", f"Bearer {guarded.keys[name]}") for name in ("alice", "both")]
    assert (await guarded.http.get("/v1/models", headers=twice)).status_code == 401
    call = generate_pb2_grpc.GenerateServiceStub(guarded.channel).Generate(
        generate_pb2.GenerateRequest(model=MODEL, text="Hi"), metadata=tuple(twice), timeout=WAIT_S
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_many_failed_attempts_are_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    attempts = FailedAttempts(clock)
    with caplog.at_level(logging.WARNING):
        for _ in range(1000):
            attempts.note("10.1.2.3", "GET", "no key")
        clock.advance(1.0)
        attempts.note("10.1.2.3", "GET", "no key")
    assert caplog.messages == [
        "refused GET of 10.1.2.3: no key",
        "refused GET of 10.1.2.3: no key (and 999 others since the last such line)",
    ]
