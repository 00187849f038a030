"""Protobuf of what has moved between a worker and its peers."""

from baton.v1 import worker_pb2

from core.transfers import PairReport, PairStats, TransferReport
from router import wire


def transfers_from_proto(message: worker_pb2.TransferReport) -> TransferReport:
    """What has moved between a worker and its peers."""
    return TransferReport(
        sent=tuple(_pair_from_proto(pair) for pair in message.sent),
        received=tuple(_pair_from_proto(pair) for pair in message.received),
    )


def _pair_from_proto(message: worker_pb2.PairTransfers) -> PairReport:
    counts = {name: getattr(message, name) for name in PairStats.__slots__ if name != "failures"}
    peer = wire.worker_id_from_proto(message.peer)
    return PairReport(peer, message.direction, PairStats(**counts, failures=dict(message.failures)))


def transfers_to_proto(report: TransferReport) -> worker_pb2.TransferReport:
    """Inverse of `transfers_from_proto`."""
    return worker_pb2.TransferReport(
        sent=[_pair_to_proto(pair) for pair in report.sent],
        received=[_pair_to_proto(pair) for pair in report.received],
    )


def _pair_to_proto(pair: PairReport) -> worker_pb2.PairTransfers:
    return worker_pb2.PairTransfers(
        peer=wire.worker_id_to_proto(pair.peer),
        direction=pair.direction,
        **{name: getattr(pair.stats, name) for name in PairStats.__slots__},
    )
