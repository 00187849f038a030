"""The gRPC services of a router, asked anything: no call ends in a way that says that something broke."""

import asyncio
import contextlib
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import grpc
import pytest
from baton.v1 import control_pb2, generate_pb2
from google.protobuf.descriptor import MethodDescriptor
from hypothesis import strategies as st

from router.config import RouterConfig
from router.process import run_router
from tests.fuzz.cases import try_cases
from tests.fuzz.messages import any_message
from tests.router.http.serving import MODEL

WAIT_S = 30.0
BROKEN = {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED}
MALFORMED = grpc.StatusCode.INVALID_ARGUMENT
METHODS = [
    method
    for service in (
        generate_pb2.DESCRIPTOR.services_by_name["GenerateService"],
        control_pb2.DESCRIPTOR.services_by_name["ControlService"],
        control_pb2.DESCRIPTOR.services_by_name["MembershipService"],
    )
    for method in service.methods
]
# What lets a case get past the first check.
KNOWN = {
    "baton.v1.GenerateRequest.model": st.just(MODEL) | st.text(max_size=5),
    "baton.v1.ChatMessage.role": st.sampled_from(["system", "user", "assistant", "robot"]),
    "baton.v1.GenerateRequest.max_tokens": st.integers(0, 20),
    # Either wrong or longer than any call here takes: a short one would end a call as a stuck server does.
    "baton.v1.GenerateRequest.timeout_s": st.floats(max_value=0)
    | st.floats(min_value=2 * WAIT_S)
    | st.just(math.nan),
    "baton.v1.WorkerEndpoint.address": st.sampled_from(
        ["127.0.0.1:1", "", "no such address", "\0", "unix:x", "[::1"]
    ),
}


@dataclass(frozen=True)
class Router:
    """A router in a thread of its own, so that hypothesis can ask from a plain function."""

    loop: asyncio.AbstractEventLoop
    public: grpc.Channel
    cluster: grpc.Channel

    def channel(self, method: MethodDescriptor) -> grpc.Channel:
        return self.cluster if method.containing_service.name == "MembershipService" else self.public


@pytest.fixture(scope="module")
def router(config: RouterConfig) -> Iterator[Router]:
    """Nobody computes here: an accepted request fails at once for want of workers."""
    settings = replace(config, port=0, grpc_port=0, placement_timeout_s=0.001, heartbeat_timeout_s=0.1)
    started: list[Any] = []
    ready, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with run_router(settings) as addresses:
            started.extend((asyncio.get_running_loop(), addresses))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(WAIT_S)
    loop, addresses = started
    with contextlib.ExitStack() as stack:
        channels = [
            stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{port}"))
            for port in (addresses.grpc_port, addresses.cluster_port)
        ]
        yield Router(loop, *channels)
    loop.call_soon_threadsafe(stop.set)
    thread.join(WAIT_S)
    assert not thread.is_alive()


def ask(router: Router, method: MethodDescriptor, message: bytes) -> grpc.StatusCode:
    """How a call with these bytes ends."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    channel = router.channel(method)
    try:
        if method.server_streaming:
            for _ in channel.unary_stream(path)(message, timeout=WAIT_S):
                pass
        else:
            channel.unary_unary(path)(message, timeout=WAIT_S)
    except grpc.RpcError as failure:
        return failure.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_no_message_breaks_a_call(router: Router, method: MethodDescriptor) -> None:
    def check(message: Any) -> None:  # noqa: ANN401 - of the method's type
        assert ask(router, method, message.SerializeToString()) not in BROKEN

    try_cases(method.full_name, any_message(method.input_type, KNOWN), check)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_no_bytes_break_a_call(router: Router, method: MethodDescriptor) -> None:
    def check(message: bytes) -> None:
        assert ask(router, method, message) not in BROKEN

    try_cases(f"{method.full_name} (bytes)", st.binary(max_size=40), check)
    assert ask(router, method, b"\x07") is MALFORMED  # of a wire type that there is not
