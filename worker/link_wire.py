"""Protobuf of the link service: how two workers agree on a transport, and reads that one asks the other for."""

from baton.v1 import handoff_pb2

from core.errors import HandoffError, IncompatibleLayoutError
from kvtransfer.geometry import WorkerGeometry
from kvtransfer.move import MoveOutcome
from worker import wire
from worker.negotiation import Agreement, Introduction
from worker.read_order import ReadAnswer, ReadOrder


def geometry_to_proto(geometry: WorkerGeometry) -> handoff_pb2.KvGeometry:
    """How a worker's KV lies on its ranks."""
    return handoff_pb2.KvGeometry(
        layout=wire.layout_to_proto(geometry.layout),
        total_kv_heads=geometry.total_kv_heads,
        tensor_parallel_size=geometry.tensor_parallel_size,
        num_partitions=geometry.num_partitions,
        num_blocks=geometry.num_blocks,
    )


def geometry_from_proto(message: handoff_pb2.KvGeometry) -> WorkerGeometry:
    """Inverse of `geometry_to_proto`.

    Raises:
        IncompatibleLayoutError: there is no such division of KV.
    """
    return WorkerGeometry(
        layout=wire.layout_from_proto(message.layout),
        total_kv_heads=message.total_kv_heads,
        tensor_parallel_size=message.tensor_parallel_size,
        num_partitions=message.num_partitions,
        num_blocks=message.num_blocks,
    )


def introduction_to_proto(introduction: Introduction) -> handoff_pb2.ConnectPeerRequest:
    """What a source says of itself."""
    return handoff_pb2.ConnectPeerRequest(
        source=wire.worker_id_to_proto(introduction.source),
        target=wire.worker_id_to_proto(introduction.target),
        model_fingerprint=introduction.fingerprint,
        geometry=geometry_to_proto(introduction.geometry),
        offers=[
            handoff_pb2.TransportOffer(transport=name, metadata=metadata)
            for name, metadata in introduction.offers.items()
        ],
    )


def introduction_from_proto(message: handoff_pb2.ConnectPeerRequest) -> Introduction:
    """Inverse of `introduction_to_proto`.

    Raises:
        IncompatibleLayoutError: there is no such division of KV.
    """
    return Introduction(
        source=wire.worker_id_from_proto(message.source),
        target=wire.worker_id_from_proto(message.target),
        fingerprint=message.model_fingerprint,
        geometry=geometry_from_proto(message.geometry),
        offers={offer.transport: tuple(offer.metadata) for offer in message.offers},
    )


def agreement_to_proto(agreement: Agreement) -> handoff_pb2.ConnectPeerResponse:
    """What a target answers."""
    return handoff_pb2.ConnectPeerResponse(
        chosen=handoff_pb2.TransportOffer(transport=agreement.transport, metadata=agreement.metadata),
        geometry=geometry_to_proto(agreement.geometry),
    )


def agreement_from_proto(message: handoff_pb2.ConnectPeerResponse) -> Agreement:
    """Inverse of `agreement_to_proto`.

    Raises:
        IncompatibleLayoutError: there is no such division of KV.
    """
    chosen = message.chosen
    return Agreement(chosen.transport, tuple(chosen.metadata), geometry_from_proto(message.geometry))


def read_order_to_proto(order: ReadOrder) -> handoff_pb2.ReadBlocksRequest:
    """What a target is to read."""
    return handoff_pb2.ReadBlocksRequest(
        read_id=order.read_id,
        handoff_id=order.handoff_id,
        source=wire.endpoint_to_proto(order.source),
        target=wire.worker_id_to_proto(order.target),
        source_ids=order.source_ids,
        target_ids=order.target_ids,
        skip_tokens=order.skip_tokens,
    )


def read_order_from_proto(message: handoff_pb2.ReadBlocksRequest) -> ReadOrder:
    """Inverse of `read_order_to_proto`."""
    return ReadOrder(
        read_id=message.read_id,
        handoff_id=message.handoff_id,
        source=wire.endpoint_from_proto(message.source),
        target=wire.worker_id_from_proto(message.target),
        source_ids=tuple(message.source_ids),
        target_ids=tuple(message.target_ids),
        skip_tokens=message.skip_tokens,
    )


def read_answer_to_proto(answer: ReadAnswer) -> handoff_pb2.ReadBlocksResponse:
    """How a read has ended."""
    outcome = answer.outcome
    return handoff_pb2.ReadBlocksResponse(
        error_code=outcome.error.code if outcome.error else "",
        error=outcome.error.message if outcome.error else "",
        num_bytes=outcome.num_bytes,
        num_descriptors=outcome.num_descriptors,
        busy_s=outcome.busy_s,
        transport=answer.transport,
        path=answer.path,
        was_retried=answer.was_retried,
    )


def read_answer_from_proto(message: handoff_pb2.ReadBlocksResponse) -> ReadAnswer:
    """Inverse of `read_answer_to_proto`, but that the source tells two kinds of errors apart only.

    What is incompatible can be pushed; anything else, such as that the reader takes the source for dead, is a failed
    handoff.
    """
    error: HandoffError | None = None
    if message.error_code:
        is_incompatible = message.error_code == IncompatibleLayoutError.code
        error = (IncompatibleLayoutError if is_incompatible else HandoffError)(message.error)
    outcome = MoveOutcome(error, message.num_bytes, message.num_descriptors, message.busy_s)
    return ReadAnswer(outcome, message.transport, message.path, message.was_retried)
