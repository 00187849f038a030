"""Asks a router about the experts of its workers over gRPC, or to have them rebalanced."""

from baton.v1 import control_pb2

from core.experts import ExpertReport
from deploy.status_client import control_stub
from router import expert_wire

TIMEOUT_S = 70.0  # the router gives a worker a minute: a rebalancing reads experts from disk


def get_experts(grpc_address: str, worker: str | None) -> dict[str, ExpertReport]:
    """The use of experts by name of the worker; of one worker, or of all.

    Raises:
        InvalidRequestError: there is no such worker.
        UnavailableError: the router, or one of the workers, does not answer.
    """
    with control_stub(grpc_address) as stub:
        answer = stub.GetExperts(control_pb2.GetExpertsRequest(worker=worker or ""), timeout=TIMEOUT_S)
    return {entry.worker: expert_wire.expert_report_from_proto(entry.report) for entry in answer.workers}


def rebalance_experts(grpc_address: str, worker: str) -> ExpertReport:
    """Has a worker divide its experts anew among its ranks; the report says what came of it, or why nothing did.

    Raises:
        InvalidRequestError: there is no such worker.
        UnavailableError: the router or the worker does not answer.
    """
    with control_stub(grpc_address) as stub:
        answer = stub.RebalanceExperts(control_pb2.RebalanceExpertsRequest(worker=worker), timeout=TIMEOUT_S)
    return expert_wire.expert_report_from_proto(answer.report)
