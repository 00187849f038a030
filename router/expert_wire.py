"""Protobuf of questions about a worker's experts, and of its answers."""

from baton.v1 import worker_pb2

from core.experts import ExpertLayer, ExpertReport


def expert_query_to_proto(query_id: str, *, rebalance: bool) -> worker_pb2.AttachRequest:
    """A question about experts."""
    return worker_pb2.AttachRequest(query_experts=worker_pb2.QueryExperts(query_id=query_id, rebalance=rebalance))


def expert_report_from_proto(message: worker_pb2.ExpertReport) -> ExpertReport:
    """A worker's answer to a question about experts."""
    layers = tuple(
        ExpertLayer(layer.layer, tuple(layer.tokens), layer.imbalance_before, layer.imbalance_after)
        for layer in message.layers
    )
    return ExpertReport(message.query_id, layers, message.refusal, message.num_moved)


def expert_report_to_proto(report: ExpertReport) -> worker_pb2.ExpertReport:
    """Inverse of `expert_report_from_proto`."""
    layers = [
        worker_pb2.ExpertLayer(
            layer=layer.layer,
            tokens=layer.tokens,
            imbalance_before=layer.imbalance_before,
            imbalance_after=layer.imbalance_after,
        )
        for layer in report.layers
    ]
    return worker_pb2.ExpertReport(
        query_id=report.query_id, layers=layers, refusal=report.refusal, num_moved=report.num_moved
    )
