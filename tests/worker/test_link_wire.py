"""What one end of a link writes, the other reads as the same."""

import hypothesis.strategies as st
import pytest
from google.protobuf.message import Message
from hypothesis import given

from core.errors import HandoffError, IncompatibleLayoutError, PeerLostError
from core.ids import WorkerEndpoint, WorkerId
from engine.kv.layout import KvLayout
from kvtransfer.geometry import WorkerGeometry
from kvtransfer.move import MoveOutcome
from tests.strategies import UINT32
from worker import link_wire
from worker.negotiation import Agreement, Introduction
from worker.read_order import ReadAnswer, ReadOrder

TEXT = st.text(max_size=8)
workers = st.builds(WorkerId, TEXT, st.integers(0, 2**64 - 1))
geometries = st.builds(
    lambda tensor, partitions, blocks, tokens: WorkerGeometry(
        KvLayout(3, max(1, 4 // tensor), tokens, 8, "bfloat16"), 4, tensor, partitions, blocks * partitions
    ),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(1, 4),
    st.integers(1, 1000),
    st.integers(1, 128),
)
metadata = st.lists(st.binary(max_size=8), max_size=3).map(tuple)
ids = st.lists(UINT32, max_size=5).map(tuple)
orders = st.builds(ReadOrder, TEXT, TEXT, st.builds(WorkerEndpoint, workers, TEXT), workers, ids, ids, UINT32)


def parsed(message: Message) -> Message:
    """The message as the other process gets it."""
    return type(message).FromString(message.SerializeToString())


@given(workers, workers, TEXT, geometries, st.dictionaries(TEXT, metadata, max_size=3))
def test_introduction_arrives_as_it_was_sent_in_its_order(
    source: WorkerId,
    target: WorkerId,
    fingerprint: str,
    geometry: WorkerGeometry,
    offers: dict[str, tuple[bytes, ...]],
) -> None:
    sent = Introduction(source, target, fingerprint, geometry, offers)
    got = link_wire.introduction_from_proto(parsed(link_wire.introduction_to_proto(sent)))
    assert got == sent
    assert list(got.offers) == list(offers)


@given(TEXT, metadata, geometries)
def test_agreement_arrives_as_it_was_sent(
    transport: str, metadata: tuple[bytes, ...], geometry: WorkerGeometry
) -> None:
    sent = Agreement(transport, metadata, geometry)
    assert link_wire.agreement_from_proto(parsed(link_wire.agreement_to_proto(sent))) == sent


@given(orders)
def test_read_order_arrives_as_it_was_sent(sent: ReadOrder) -> None:
    assert link_wire.read_order_from_proto(parsed(link_wire.read_order_to_proto(sent))) == sent


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (None, type(None)),
        (IncompatibleLayoutError("shapes"), IncompatibleLayoutError),
        (HandoffError("down"), HandoffError),
        (PeerLostError("the source looks dead from there"), HandoffError),
    ],
)
def test_read_answer_arrives_with_an_error_that_the_source_understands(
    error: HandoffError | None, kind: type[HandoffError | None]
) -> None:
    sent = ReadAnswer(MoveOutcome(error, 7, 8, 0.5), "nixl", "tcp", was_retried=True)
    got = link_wire.read_answer_from_proto(parsed(link_wire.read_answer_to_proto(sent)))
    assert type(got.outcome.error) is kind
    assert (got.outcome.error and got.outcome.error.message) == (error and error.message)
    assert (got.outcome.num_bytes, got.outcome.num_descriptors, got.outcome.busy_s) == (7, 8, 0.5)
    assert (got.transport, got.path, got.was_retried) == ("nixl", "tcp", True)
