"""A worker is sent anything by routers and peers that have the cluster's token: its loop goes on, and serves."""

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
from baton.v1 import common_pb2, handoff_pb2, prefix_pb2, worker_pb2
from google.protobuf.descriptor import MethodDescriptor
from hypothesis import strategies as st

from core.ids import WorkerEndpoint, WorkerId
from core.request import Assignment, Role
from router import expert_wire, wire
from rpc.channels import open_sync_channel
from tests.fuzz.cases import try_cases
from tests.fuzz.messages import any_message
from tests.fuzz.traces import no_traces  # noqa: F401 - a fixture
from tests.worker.loops import greedy
from tests.worker.routers import TIMEOUT_S, AttachedRouter, look
from worker.process import WorkerProcess

CALL_TIMEOUT_S = 0.2  # some calls wait for what never comes
METHODS = [
    method
    for service in (
        handoff_pb2.DESCRIPTOR.services_by_name["HandoffService"],
        handoff_pb2.DESCRIPTOR.services_by_name["LinkService"],
        prefix_pb2.DESCRIPTOR.services_by_name["PrefixService"],
    )
    for method in service.methods
]
NOWHERE = WorkerEndpoint(WorkerId("nobody-0", 1), "127.0.0.1:1")
SAMPLING = {
    "baton.v1.SamplingParams.temperature": st.sampled_from([0.0, 1.0]),
    "baton.v1.SamplingParams.top_p": st.sampled_from([1.0, 0.5]),
    "baton.v1.SamplingParams.min_p": st.sampled_from([0.0, 0.1]),
    "baton.v1.SamplingParams.repetition_penalty": st.sampled_from([1.0, 1.1]),
    "baton.v1.SamplingParams.presence_penalty": st.sampled_from([0.0, 1.0]),
    "baton.v1.SamplingParams.frequency_penalty": st.sampled_from([0.0, 1.0]),
    "baton.v1.SamplingParams.logit_bias": st.dictionaries(st.integers(0, 200), st.floats(-100, 100), max_size=3),
    "baton.v1.SamplingParams.logprobs": st.integers(0, 20),
    "baton.v1.BadWord.token_ids": st.lists(st.integers(0, 200), min_size=1, max_size=3),
}
LAST = "the last question"
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def worker(start_worker: Callable[[str, Role], WorkerProcess]) -> WorkerProcess:
    return start_worker("fuzzed-0", Role.MIXED)


def known_fields(worker: WorkerProcess) -> dict[str, st.SearchStrategy[Any]]:
    """Values that get past the first check, most of the time."""
    endpoints = st.sampled_from([wire.endpoint_to_proto(each) for each in (worker.endpoint, NOWHERE)])
    ids = st.sampled_from([wire.worker_id_to_proto(each.worker) for each in (worker.endpoint, NOWHERE)])
    names = st.sampled_from(["a", "b", "c"])  # few, so that messages are about the same work
    work = "baton.v1.AssignWork"
    targets = {
        field.full_name: endpoints if field.message_type.name == "WorkerEndpoint" else ids
        for method in METHODS
        for field in method.input_type.fields
        if field.name == "target"
    }
    return {
        f"{work}.handoff_id": names,
        f"{work}.prompt": st.lists(st.integers(0, 150), min_size=1, max_size=40),
        f"{work}.max_new_tokens": st.integers(1, 4),
        f"{work}.prefill": endpoints,
        f"{work}.decode": endpoints,
        f"{work}.sampling": any_message(common_pb2.SamplingParams.DESCRIPTOR, SAMPLING),
        "baton.v1.PrefixSource.source": endpoints,
        "baton.v1.MigrateWork.handoff_id": names,
        "baton.v1.MigrateWork.target": endpoints,
        "baton.v1.CancelWork.handoff_id": names,
        "baton.v1.SetRole.role_epoch": st.integers(0, 20),
        **targets,
    }


def work_of(worker: WorkerProcess, handoff_id: str, **changes: object) -> Assignment:
    """Something that the worker can do alone."""
    work = greedy(handoff_id, (5, 17, 40), 2)
    return replace(work, **{"prefill": worker.endpoint, "decode": worker.endpoint, **changes})


def attach(worker: WorkerProcess) -> AttachedRouter:
    """A router of an id of its own: the worker may not have let go yet of one that was closed a moment ago."""
    return AttachedRouter(worker.endpoint.address, wire.router_hello_to_proto(f"router-{next(NUMBERS)}"))


def without_leave(order: worker_pb2.AttachRequest) -> worker_pb2.AttachRequest:
    """An order without the one that ends the process, which is the tests', too."""
    order.ClearField("leave")
    for each in order.further:
        without_leave(each)
    return order


def serves(worker: WorkerProcess) -> bool:
    """Whether a request is answered; nothing it could find in a cache."""
    with contextlib.closing(attach(worker)) as router:
        router.assign(work_of(worker, "check"), router.hello().role_state.epoch)
        return len(router.wait_tokens("check", until_end=True)) == 2


def test_no_order_of_a_router_ends_the_loop(worker: WorkerProcess) -> None:
    orders = any_message(worker_pb2.AttachRequest.DESCRIPTOR, known_fields(worker)).map(without_leave)

    def check(messages: list[Any]) -> None:
        with contextlib.closing(attach(worker)) as router:
            epoch = router.hello().role_state.epoch
            router.assign(work_of(worker, "a", cache_salt=f"{next(NUMBERS)}"), epoch)  # what others may be about
            for message in messages:
                if message.HasField("assign"):
                    message.assign.role_epoch = message.assign.role_epoch or epoch
                router.send(message)
            router.send(expert_wire.expert_query_to_proto(LAST, rebalance=False))
            wait_for_last(router)
            for _ in range(2):  # between two looks there is a step
                assert look(worker, lambda _: True)

    before = look(worker, lambda process: process.loop.load())
    try_cases("baton.v1.WorkerService.Attach", st.lists(orders, min_size=1, max_size=8), check)
    assert look(worker, lambda process: process.loop.load()).prompt_tokens_computed > before.prompt_tokens_computed
    assert serves(worker)


def test_bytes_that_are_no_order_end_their_stream_and_not_the_loop(worker: WorkerProcess) -> None:
    leaving = threading.Event()

    def orders() -> Iterator[bytes]:
        yield wire.router_hello_to_proto(f"router-{next(NUMBERS)}").SerializeToString()
        yield b"\x07"  # of a wire type that there is not
        leaving.wait()

    with open_sync_channel(worker.endpoint.address) as channel:
        call = channel.stream_stream("/baton.v1.WorkerService/Attach")(orders(), timeout=TIMEOUT_S)
        assert len(list(call)) >= 1  # a hello
        leaving.set()
    assert serves(worker)


def wait_for_last(router: AttachedRouter) -> None:
    """Reads what the worker says until it has read everything."""
    for answer in router._call:
        if answer.expert_report.query_id == LAST:
            return
    pytest.fail("the worker has ended the stream")


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_no_message_of_a_peer_ends_the_loop(worker: WorkerProcess, method: MethodDescriptor) -> None:
    def check(message: Any) -> None:  # noqa: ANN401 - of the method's type
        call(worker, method, message.SerializeToString())
        assert look(worker, lambda _: True)

    try_cases(method.full_name, any_message(method.input_type, known_fields(worker)), check)
    assert serves(worker)


def call(worker: WorkerProcess, method: MethodDescriptor, message: bytes) -> grpc.StatusCode:
    path = f"/{method.containing_service.full_name}/{method.name}"
    with open_sync_channel(worker.endpoint.address) as channel:
        try:
            channel.unary_unary(path)(message, timeout=CALL_TIMEOUT_S)
        except grpc.RpcError as failure:
            return failure.code()
    return grpc.StatusCode.OK
