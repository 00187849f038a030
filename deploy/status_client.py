"""Asks a router for its status over gRPC; and what every call of its control service goes through."""

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from baton.v1 import control_pb2, control_pb2_grpc

from core.errors import (
    ERROR_CODE_KEY,
    AuthenticationError,
    BatonError,
    DeadlineError,
    InternalError,
    InvalidRequestError,
    PermissionDeniedError,
    StaleEpochError,
    UnavailableError,
    UnreachableError,
)
from deploy.client_key import ShowingKey

TIMEOUT_S = 5.0
SAID_BY_ROUTER: dict[str, type[BatonError]] = {
    error.grpc_status: error
    for error in (
        InvalidRequestError,
        AuthenticationError,
        PermissionDeniedError,
        StaleEpochError,
        UnavailableError,
        DeadlineError,
    )
}


def get_status(grpc_address: str) -> control_pb2.GetStatusResponse:
    """The router's view of the fleet.

    Raises:
        UnreachableError: the router does not answer.
    """
    with control_stub(grpc_address) as stub:
        status: control_pb2.GetStatusResponse = stub.GetStatus(control_pb2.GetStatusRequest(), timeout=TIMEOUT_S)
    return status


@contextmanager
def control_stub(grpc_address: str) -> Iterator[control_pb2_grpc.ControlServiceStub]:
    """The router's control service; within, a call that fails raises an error of the tree.

    Raises:
        AuthenticationError: the router wants another key than this process has; see `deploy.client_key`.
        PermissionDeniedError: the key is no operator's.
        InvalidRequestError: the router says what is wrong with the request.
        StaleEpochError: the router says that the order is for a state that is gone.
        UnavailableError: the router says why it cannot do it now.
        UnreachableError: the router does not answer.
        BatonError: whatever else the router says.
    """
    with calling(grpc_address) as channel:
        yield control_pb2_grpc.ControlServiceStub(grpc.intercept_channel(channel, ShowingKey()))


@contextmanager
def membership_stub(cluster_address: str) -> Iterator[control_pb2_grpc.MembershipServiceStub]:
    """The membership service on a router's cluster port; errors as those of `control_stub`."""
    with calling(cluster_address) as channel:
        yield control_pb2_grpc.MembershipServiceStub(channel)


@contextmanager
def calling(address: str) -> Iterator[grpc.Channel]:
    """A channel to a router; within, a call that fails raises an error of the tree."""
    with grpc.insecure_channel(address) as channel:
        try:
            yield channel
        except grpc.RpcError as failure:
            raise error_of(address, failure) from failure


def error_of(grpc_address: str, failure: grpc.RpcError) -> BatonError:
    """What a call failed with: the router's own error with its sentence, or that nobody answered."""
    status = failure.code().name
    if any(entry.key == ERROR_CODE_KEY for entry in failure.trailing_metadata() or ()):
        return SAID_BY_ROUTER.get(status, InternalError)(str(failure.details()))
    return UnreachableError(f"the router at {grpc_address} does not answer: {status}")
