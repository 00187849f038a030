"""Both ends of the attach stream agree: what one side writes, the other reads as the same."""

from dataclasses import fields, replace
from operator import attrgetter

import hypothesis.strategies as st
import pytest
from baton.v1 import common_pb2, worker_pb2
from google.protobuf.message import Message
from hypothesis import given

from core.errors import InvalidRequestError
from core.events import ReturnedWork, TokenEvent, TokenTiming, WorkerLoad
from core.ids import WorkerEndpoint, WorkerId
from core.kv_events import KvEvents, KvSnapshot
from core.request import Assignment, FinishReason, PrefixSource, Role
from core.sampling import MAX_SEED, SamplingParams
from core.transfers import PairReport, PairStats, TransferReport
from engine.kv.layout import DTYPE_BYTES, KvLayout
from kvtransfer.move import Digest
from kvtransfer.port import Reservation
from router import transfer_wire
from router import wire as router_wire
from tests.builders import assignment, events_of
from tests.strategies import UINT32, sampling_params, token_logprobs
from worker import wire
from worker.report import StepReport

UINT64 = st.integers(0, 2**64 - 1)
TEXT = st.text(max_size=20)
SECONDS = st.floats(0, 1e9)

workers = st.builds(WorkerId, TEXT, UINT64)
endpoints = st.builds(WorkerEndpoint, workers, TEXT)
assignments = st.builds(
    Assignment,
    handoff_id=TEXT,
    prompt=st.lists(UINT32, max_size=20).map(tuple),
    first_position=UINT32,
    max_new_tokens=UINT32,
    sampling=sampling_params,
    stop_token_ids=st.frozensets(UINT32, max_size=5),
    prefill=endpoints,
    decode=endpoints,
    cache_salt=TEXT,
    prefix_source=st.none() | st.builds(PrefixSource, endpoints, UINT32, SECONDS),
    tenant=TEXT,
    priority=st.integers(-(2**31), 2**31 - 1),
    tenant_answer_tokens=UINT64,
)
HANDOFF = attrgetter("handoff_id")
layouts = st.builds(KvLayout, UINT32, UINT32, UINT32, UINT32, st.sampled_from(list(DTYPE_BYTES)))
tokens = st.builds(
    TokenEvent,
    TEXT,
    UINT32,
    UINT32,
    st.sampled_from([None, *FinishReason]),
    st.none() | token_logprobs,
    UINT32,
    st.none() | st.builds(TokenTiming, SECONDS, SECONDS),
)
returned = st.builds(ReturnedWork, TEXT, TEXT, TEXT, st.booleans())
LOAD_TYPES = {field.name: field for field in worker_pb2.WorkerLoad.DESCRIPTOR.fields}
loads = st.builds(
    WorkerLoad,
    **{
        name: SECONDS if field.type == field.TYPE_DOUBLE else UINT32 if field.type == field.TYPE_UINT32 else UINT64
        for name, field in LOAD_TYPES.items()
    },
)
PAIR_TYPES = {field.name: field for field in worker_pb2.PairTransfers.DESCRIPTOR.fields}
totals = st.builds(
    PairStats,
    transport=TEXT,
    path=TEXT,
    num_handoffs=UINT64,
    num_bytes=UINT64,
    num_retried=UINT64,
    busy_s=SECONDS,
    exposed_s=SECONDS,
    failures=st.dictionaries(TEXT, UINT32, max_size=3),
)
pairs = st.lists(st.builds(PairReport, workers, TEXT, totals), max_size=3).map(tuple)
transfers = st.builds(TransferReport, pairs, pairs)
names = st.lists(st.binary(min_size=16, max_size=16), max_size=3).map(tuple)
reports = st.builds(
    StepReport,
    st.lists(tokens, max_size=4),
    st.lists(returned, max_size=4),
    loads,
    st.none() | st.builds(KvEvents, UINT64, names, names),
    st.none() | st.builds(KvSnapshot, UINT64, names, st.booleans()),
)


def parsed(message: Message) -> Message:
    """The message as the other process gets it."""
    return type(message).FromString(message.SerializeToString())


def unset_fields(message: Message) -> set[str]:
    """Names of fields, nested ones included, that a message does not carry."""
    carried = {field.name: value for field, value in message.ListFields()}
    unset = {field.name for field in message.DESCRIPTOR.fields} - set(carried)
    for name, value in carried.items():
        if isinstance(value, Message):
            unset |= {f"{name}.{inner}" for inner in unset_fields(value)}
    return unset


@given(assignments, UINT64)
def test_assignment_arrives_as_it_was_sent(work: Assignment, role_epoch: int) -> None:
    message = parsed(router_wire.assignment_to_proto(work, role_epoch)).assign
    assert wire.assignment_from_proto(message) == work
    assert message.role_epoch == role_epoch


@given(reports)
def test_report_arrives_as_it_was_sent(report: StepReport) -> None:
    arrived = router_wire.report_from_proto(parsed(wire.report_to_proto(report)).report)
    assert sorted(events_of(arrived.runs), key=HANDOFF) == sorted(report.tokens, key=HANDOFF)
    for name in {field.name for field in fields(StepReport)} - {"tokens"}:
        assert getattr(arrived, name) == getattr(report, name)


def test_load_has_the_same_fields_on_both_sides_and_on_the_wire() -> None:
    assert set(LOAD_TYPES) == set(WorkerLoad.__slots__)
    load = WorkerLoad(**{name: i for i, name in enumerate(LOAD_TYPES, start=1)})
    assert unset_fields(wire.load_to_proto(load)) == set()


@given(transfers)
def test_transfers_arrive_as_they_were_sent(report: TransferReport) -> None:
    message = parsed(wire.transfers_to_proto(report)).transfers
    assert transfer_wire.transfers_from_proto(message) == report
    assert transfer_wire.transfers_to_proto(report) == message


def test_totals_of_a_pair_have_the_same_fields_on_both_sides_and_on_the_wire() -> None:
    assert set(PAIR_TYPES) - {"peer", "direction"} == set(PairStats.__slots__)


@given(endpoints)
def test_endpoint_arrives_as_it_was_sent(endpoint: WorkerEndpoint) -> None:
    message = parsed(wire.endpoint_to_proto(endpoint))
    assert wire.endpoint_from_proto(message) == router_wire.endpoint_from_proto(message) == endpoint
    assert parsed(router_wire.endpoint_to_proto(endpoint)) == message


@given(layouts)
def test_layout_arrives_as_it_was_sent(layout: KvLayout) -> None:
    assert wire.layout_from_proto(parsed(wire.layout_to_proto(layout))) == layout


def test_every_field_of_an_assignment_is_carried() -> None:
    params = SamplingParams(0.5, 0.5, 1, 1, 0.5, 1.5, 0.5, 0.5, ((3, 1.0),), ((4, 5),), 1, 0)
    source = PrefixSource(WorkerEndpoint(WorkerId("decode-0", 1), "127.0.0.1:2"), 16, 0.5)
    work = replace(
        assignment("h", first_position=2),
        sampling=params,
        cache_salt="salt",
        prefix_source=source,
        tenant="tenant",
        priority=-1,
        tenant_answer_tokens=7,
    )
    message = router_wire.assignment_to_proto(work, 1).assign
    assert unset_fields(message) == set()
    assert {field.name for field in message.sampling.DESCRIPTOR.fields} == set(SamplingParams.__slots__)


@pytest.mark.parametrize("role", Role)
def test_every_role_and_reason_has_a_number_the_router_knows(role: Role) -> None:
    assert router_wire.ROLE_FROM_PROTO[wire.ROLE_TO_PROTO[role]] is role
    assert {n: r for r, n in wire.FINISH_TO_PROTO.items()} == router_wire.FINISH_FROM_PROTO
    assert set(wire.FINISH_TO_PROTO) == {None, *FinishReason}
    assert set(wire.FINISH_TO_PROTO.values()) == set(common_pb2.FinishReason.values())


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 3.0},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"seed": MAX_SEED + 1},
        {"repetition_penalty": 0.0},
        {"logprobs": 21},
    ],
)
def test_sampling_out_of_range_is_refused_by_field(changes: dict[str, float]) -> None:
    message = router_wire.assignment_to_proto(assignment("h"), 1).assign
    for name, value in changes.items():
        setattr(message.sampling, name, value)
    with pytest.raises(InvalidRequestError, match=next(iter(changes))):
        wire.assignment_from_proto(message)


def test_assignment_without_sampling_is_refused() -> None:
    message = router_wire.assignment_to_proto(assignment("h"), 1).assign
    message.ClearField("sampling")
    with pytest.raises(InvalidRequestError, match="top_p is 0"):
        wire.assignment_from_proto(message)


def test_handoff_messages_carry_every_field() -> None:
    source, target = WorkerId("prefill-0", 1), WorkerId("decode-0", 2)
    digest = Digest(rank=1, block_id=5, first_head=2, num_heads=3, value=2**64 - 1)
    messages = (
        wire.begin_to_proto("h", source, target, 20),
        wire.commit_to_proto("h", source, target, token_ids=[3, 1], num_blocks=4, digests=[digest]),
        wire.abort_to_proto("h", source, target),
    )
    assert wire.digest_from_proto(parsed(wire.digest_to_proto(digest))) == digest
    assert unset_fields(wire.renewal_to_proto(source, target, ["h"])) == set()
    reserved = Reservation(2, (5, 3), 16)
    assert wire.reservation_from_proto(parsed(wire.reservation_to_proto(reserved))) == reserved
    for message in messages:
        assert unset_fields(message) == set()
        assert message.handoff_id == "h"
        assert wire.worker_id_from_proto(message.source) == source
        assert wire.worker_id_from_proto(message.target) == target
    assert (messages[1].tokens, messages[1].num_blocks) == ([3, 1], 4)
    assert wire.begin_to_proto("h", source, target).num_tokens == 0
