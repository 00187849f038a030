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
from deploy.client_key import with_key
from deploy.client_tls import security_of
from rpc.channels import open_sync_channel
from rpc.security import RpcSecurity

TIMEOUT_S = 5.0
TLS_WORDS = ("SSL", "TLS", "handshake", "Peer name")  # of which gRPC says one when it is to blame
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


def get_status(grpc_address: str, security: RpcSecurity | None = None) -> control_pb2.GetStatusResponse:
    """The router's view of the fleet. Arguments and errors as those of `control_stub`."""
    with control_stub(grpc_address, security) as stub:
        status: control_pb2.GetStatusResponse = stub.GetStatus(control_pb2.GetStatusRequest(), timeout=TIMEOUT_S)
    return status


@contextmanager
def control_stub(
    grpc_address: str, security: RpcSecurity | None = None
) -> Iterator[control_pb2_grpc.ControlServiceStub]:
    """The router's control service; within, a call that fails raises an error of the tree.

    Args:
        grpc_address: `host:port` of its gRPC port or of its cluster port.
        security: of that port; None looks up how the gRPC port is called, see `deploy.client_tls`.

    Raises:
        AuthenticationError: the router wants another key or token; see `deploy.client_key`.
        PermissionDeniedError: the key is no operator's.
        InvalidRequestError: the router says what is wrong with the request.
        StaleEpochError: the router says that the order is for a state that is gone.
        UnavailableError: the router says why it cannot do it now.
        UnreachableError: the router does not answer.
        BatonError: whatever else the router says.
    """
    with calling(grpc_address, with_key(security_of(grpc_address)) if security is None else security) as channel:
        yield control_pb2_grpc.ControlServiceStub(channel)


@contextmanager
def membership_stub(cluster_address: str, security: RpcSecurity) -> Iterator[control_pb2_grpc.MembershipServiceStub]:
    """The membership service on a router's cluster port; errors as those of `control_stub`."""
    with calling(cluster_address, security) as channel:
        yield control_pb2_grpc.MembershipServiceStub(channel)


@contextmanager
def calling(address: str, security: RpcSecurity) -> Iterator[grpc.Channel]:
    """A channel to a router; within, a call that fails raises an error of the tree."""
    with open_sync_channel(address, security) as channel:
        try:
            yield channel
        except grpc.RpcError as failure:
            raise error_of(address, failure) from failure


def error_of(grpc_address: str, failure: grpc.RpcError) -> BatonError:
    """What a call failed with: the router's own error with its sentence, or that nobody answered."""
    status = failure.code().name
    if any(entry.key == ERROR_CODE_KEY for entry in failure.trailing_metadata() or ()):
        return SAID_BY_ROUTER.get(status, InternalError)(str(failure.details()))
    details = str(failure.details())
    if any(word in details for word in TLS_WORDS):
        return UnreachableError(
            f"no TLS comes about with the router at {grpc_address}: {details}; see --ca-file, --cert-file, --key-file"
        )
    return UnreachableError(f"the router at {grpc_address} does not answer: {status}")
