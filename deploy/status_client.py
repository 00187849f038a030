"""Asks a router for its status over gRPC."""

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from baton.v1 import control_pb2, control_pb2_grpc

from core.errors import InvalidRequestError, UnavailableError

TIMEOUT_S = 5.0


def get_status(grpc_address: str) -> control_pb2.GetStatusResponse:
    """The router's view of the fleet.

    Raises:
        UnavailableError: the router does not answer.
    """
    with control_stub(grpc_address) as stub:
        status: control_pb2.GetStatusResponse = stub.GetStatus(control_pb2.GetStatusRequest(), timeout=TIMEOUT_S)
    return status


@contextmanager
def control_stub(grpc_address: str) -> Iterator[control_pb2_grpc.ControlServiceStub]:
    """The router's control service; within, a call that fails raises an error of the tree.

    Raises:
        InvalidRequestError: the router says what is wrong with the request.
        UnavailableError: the router does not answer, or cannot.
    """
    with grpc.insecure_channel(grpc_address) as channel:
        try:
            yield control_pb2_grpc.ControlServiceStub(channel)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                raise InvalidRequestError(str(error.details())) from error
            raise UnavailableError(f"the router at {grpc_address} does not answer: {error.code().name}") from error
