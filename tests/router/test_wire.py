"""What one side writes the other reads the same; the worker's half of the wire is the reference for the router's."""

from dataclasses import fields
from operator import attrgetter
from typing import Any

import hypothesis.strategies as st
import pytest
from baton.v1 import common_pb2, worker_pb2
from hypothesis import given

import worker.report
import worker.wire
from core.errors import ConfigError, UnavailableError
from core.events import ReturnedWork, TokenEvent, WorkerLoad
from core.experts import ExpertLayer, ExpertReport
from core.ids import WorkerEndpoint, WorkerId
from core.request import Assignment, FinishReason, Role
from core.token_runs import TokenRun
from engine.kv.layout import KvLayout
from engine.parallel.topology import ShardTopology
from router import expert_wire, hello_wire, wire
from tests.builders import DECODE, cost_model, events_of
from tests.router.builders import LAYOUT, worker_hello
from tests.strategies import UINT32, sampling_params, token_logprobs

HANDOFF = attrgetter("handoff_id")
UINT64 = st.integers(0, 2**64 - 1)

endpoints = st.builds(
    WorkerEndpoint,
    worker=st.builds(WorkerId, name=st.text(max_size=8), incarnation=UINT64),
    address=st.text(max_size=8),
)
assignments = st.builds(
    Assignment,
    handoff_id=st.text(),
    prompt=st.lists(UINT32).map(tuple),
    first_position=UINT32,
    max_new_tokens=UINT32,
    sampling=sampling_params,
    stop_token_ids=st.frozensets(UINT32),
    prefill=endpoints,
    decode=endpoints,
)
token_events = st.builds(
    TokenEvent,
    handoff_id=st.sampled_from(["r.0", "r.1"]),
    position=st.integers(0, 5),
    token_id=UINT32,
    finish_reason=st.none() | st.sampled_from(FinishReason),
    logprobs=st.none() | token_logprobs,
)
returned_work = st.builds(
    ReturnedWork, handoff_id=st.text(), code=st.text(), message=st.text(), retryable=st.booleans()
)


@given(endpoint=endpoints)
def test_endpoint_round_trip(endpoint: WorkerEndpoint) -> None:
    assert wire.endpoint_from_proto(wire.endpoint_to_proto(endpoint)) == endpoint
    assert worker.wire.endpoint_from_proto(wire.endpoint_to_proto(endpoint)) == endpoint


@given(assignment=assignments, role_epoch=UINT64)
def test_assignment_reaches_the_worker_as_it_is(assignment: Assignment, role_epoch: int) -> None:
    sent = wire.assignment_to_proto(assignment, role_epoch).SerializeToString()
    received = worker_pb2.AttachRequest.FromString(sent)
    assert received.WhichOneof("message") == "assign"
    assert received.assign.role_epoch == role_epoch
    assert worker.wire.assignment_from_proto(received.assign) == assignment


def test_cancel_and_hello_name_what_they_mean() -> None:
    assert wire.cancel_to_proto("r.0").cancel.handoff_id == "r.0"
    assert wire.router_hello_to_proto("router-1").hello.router_id == "router-1"


@given(tokens=st.lists(token_events), returned=st.lists(returned_work), steps=UINT64)
def test_report_reaches_the_router_as_it_is(
    tokens: list[TokenEvent], returned: list[ReturnedWork], steps: int
) -> None:
    load = WorkerLoad(steps=steps, blocks_free=3, prefill_cost_change=1.5)
    report = worker.report.StepReport(tokens=tokens, returned=returned, load=load)
    received = worker_pb2.AttachResponse.FromString(worker.wire.report_to_proto(report).SerializeToString())
    arrived = wire.report_from_proto(received.report)
    assert sorted(events_of(arrived.runs), key=HANDOFF) == sorted(
        tokens, key=HANDOFF
    )  # in order within each sequence
    assert arrived == wire.StepReport(arrived.runs, returned, load)


def test_every_field_of_the_load_makes_the_round_trip() -> None:
    values = {field.name: field.type(index) for index, field in enumerate(fields(WorkerLoad), start=1)}
    load = WorkerLoad(**values)
    assert wire.load_from_proto(wire.load_to_proto(load)) == load
    assert {field.name for field in worker_pb2.WorkerLoad.DESCRIPTOR.fields} == values.keys()


@pytest.mark.parametrize("role", Role)
def test_hello_round_trip(role: Role) -> None:
    hello = worker_hello(DECODE, role)
    assert hello_wire.hello_from_proto(hello_wire.hello_to_proto(hello)) == hello


def test_division_of_a_worker_arrives_and_makes_the_round_trip() -> None:
    sizes = {"tensor_parallel_size": 4, "expert_parallel_size": 4, "num_redundant_experts": 8}
    message = hello_wire.hello_to_proto(worker_hello(DECODE, Role.DECODE))
    message.topology.CopyFrom(worker.wire.topology_to_proto(ShardTopology(**sizes)))
    hello = hello_wire.hello_from_proto(message)
    assert hello == worker_hello(DECODE, Role.DECODE, **sizes)
    assert hello_wire.hello_to_proto(hello) == message


def test_experts_make_the_round_trip_through_router_and_worker() -> None:
    report = ExpertReport("7", (ExpertLayer(1, (3, 4), 1.5, 1.1), ExpertLayer(3, (2**40, 0))), "no room", 5)
    sent = worker.wire.expert_report_to_proto(report).expert_report
    assert expert_wire.expert_report_from_proto(sent) == report
    assert expert_wire.expert_report_to_proto(report) == sent
    query = expert_wire.expert_query_to_proto("7", rebalance=True).query_experts
    assert (query.query_id, query.rebalance) == ("7", True)


def test_layout_of_a_worker_arrives_under_its_names() -> None:
    layout = KvLayout(num_layers=2, kv_heads=1, block_tokens=4, head_dim=8, dtype="float32")
    message = hello_wire.hello_to_proto(worker_hello(DECODE, Role.DECODE))
    message.layout.CopyFrom(worker.wire.layout_to_proto(layout))
    assert hello_wire.hello_from_proto(message).layout == LAYOUT


def test_cost_model_of_a_worker_arrives_as_it_is() -> None:
    message = hello_wire.hello_to_proto(worker_hello(DECODE, Role.DECODE))
    measured = cost_model(slowness=1.7, chunk_tokens=99)
    message.cost_model.CopyFrom(worker.wire.cost_to_proto(measured))
    arrived = worker_pb2.WorkerHello.FromString(message.SerializeToString())
    assert hello_wire.hello_from_proto(arrived).cost_model == measured


def test_worker_without_a_cost_model_is_a_config_error() -> None:
    message = hello_wire.hello_to_proto(worker_hello(DECODE, Role.DECODE))
    message.ClearField("cost_model")
    with pytest.raises(ConfigError, match="worker decode-0@1 says what its steps cost: a cost curve has the points"):
        hello_wire.hello_from_proto(message)


def test_change_of_costs_that_cannot_be_is_a_config_error() -> None:
    load = worker_pb2.WorkerLoad(decode_cost_change=-1.0)
    with pytest.raises(ConfigError, match="cost of decode"):
        wire.report_from_proto(worker_pb2.StepReport(load=load))


@pytest.mark.parametrize("role", [common_pb2.ROLE_UNSPECIFIED, 17])
def test_unknown_role_is_a_config_error(role: int) -> None:
    message = hello_wire.hello_to_proto(worker_hello(DECODE, Role.DECODE))
    message.role_state.role = role
    with pytest.raises(ConfigError, match=f"worker decode-0@1 says its role is number {role}"):
        hello_wire.hello_from_proto(message)


def test_unknown_finish_reason_is_unavailable() -> None:
    runs = worker.wire.runs_to_proto([TokenRun("r.0", 3, (7, 8), FinishReason.STOP)])
    runs.details[0].finish_reason = 17
    with pytest.raises(UnavailableError, match=r"finish reason of r\.0 is number 17; run the same version"):
        wire.runs_from_proto(runs)


@pytest.mark.parametrize(
    "changes",
    [
        {"lengths": []},
        {"lengths": [0]},
        {"lengths": [3]},
        {"lengths": [1, 1]},
        {"positions": []},
        {"handoff_ids": []},
        {"token_ids": [7]},
        {"details": [worker_pb2.TokenRunDetails(run=1)]},
    ],
    ids=str,
)
def test_columns_that_do_not_fit_are_unavailable(changes: dict[str, Any]) -> None:
    columns = {"handoff_ids": ["r.0"], "positions": [3], "lengths": [2], "token_ids": [7, 8]}
    assert wire.runs_from_proto(worker_pb2.TokenRuns(**columns)) == [TokenRun("r.0", 3, (7, 8))]
    with pytest.raises(UnavailableError, match="run the same version"):
        wire.runs_from_proto(worker_pb2.TokenRuns(**(columns | changes)))


def test_tables_cover_all_roles_and_reasons() -> None:
    assert set(wire.ROLE_TO_PROTO) == set(Role)
    assert set(wire.FINISH_TO_PROTO) == {None, *FinishReason}
    assert len(wire.ROLE_FROM_PROTO) == len(common_pb2.Role.values()) - 1
    assert len(wire.FINISH_FROM_PROTO) == len(common_pb2.FinishReason.values())
