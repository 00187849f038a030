"""Asks a router for its status over gRPC."""

import grpc
from baton.v1 import control_pb2, control_pb2_grpc

from core.errors import UnavailableError

TIMEOUT_S = 5.0


def get_status(grpc_address: str) -> control_pb2.GetStatusResponse:
    """The router's view of the fleet.

    Raises:
        UnavailableError: the router does not answer.
    """
    with grpc.insecure_channel(grpc_address) as channel:
        try:
            stub = control_pb2_grpc.ControlServiceStub(channel)
            status: control_pb2.GetStatusResponse = stub.GetStatus(control_pb2.GetStatusRequest(), timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            raise UnavailableError(f"the router at {grpc_address} does not answer: {error.code().name}") from error
    return status
