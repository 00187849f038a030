"""Asks a router about roles over gRPC, and orders changes of them."""

from collections.abc import Generator, Iterator

from baton.v1 import control_pb2

from core.errors import UnreachableError
from core.request import Role
from deploy.status_client import TIMEOUT_S, control_stub

# The longest that an order is watched. Sequences that nobody has room for end where they are, and may take as long as
# a request may.
WATCH_TIMEOUT_S = 3600.0
ORDER_TIMEOUT_S = 15.0  # the router gives a worker ten seconds to answer

Progress = Generator[control_pb2.RoleProgress, None, None]
"""Where an order stands, again and again; the last one has `is_last`. Closing it stops watching, not the order."""
Answer = (
    control_pb2.SetRoleResponse
    | control_pb2.RebalanceRolesResponse
    | control_pb2.DrainWorkerResponse
    | control_pb2.RestartWorkersResponse
)


def get_roles(grpc_address: str) -> control_pb2.GetRolesResponse:
    """Who is for what. Raises as `control_stub` does."""
    with control_stub(grpc_address) as stub:
        answer: control_pb2.GetRolesResponse = stub.GetRoles(control_pb2.GetRolesRequest(), timeout=TIMEOUT_S)
    return answer


def list_decisions(grpc_address: str, limit: int) -> control_pb2.ListRoleDecisionsResponse:
    """The controller's latest decisions, newest first; all that are kept with a limit of 0."""
    with control_stub(grpc_address) as stub:
        request = control_pb2.ListRoleDecisionsRequest(limit=limit)
        answer: control_pb2.ListRoleDecisionsResponse = stub.ListRoleDecisions(request, timeout=TIMEOUT_S)
    return answer


def list_changes(grpc_address: str, limit: int) -> control_pb2.ListRoleChangesResponse:
    """The latest changes of role, newest first; all that are kept with a limit of 0."""
    with control_stub(grpc_address) as stub:
        request = control_pb2.ListRoleChangesRequest(limit=limit)
        answer: control_pb2.ListRoleChangesResponse = stub.ListRoleChanges(request, timeout=TIMEOUT_S)
    return answer


def list_actions(grpc_address: str, limit: int) -> control_pb2.ListOperatorActionsResponse:
    """The audit log, newest first; all that is kept with a limit of 0."""
    with control_stub(grpc_address) as stub:
        request = control_pb2.ListOperatorActionsRequest(limit=limit)
        answer: control_pb2.ListOperatorActionsResponse = stub.ListOperatorActions(request, timeout=TIMEOUT_S)
    return answer


def set_role(grpc_address: str, worker: str, role: Role | None, actor: str) -> Progress:
    """Changes a worker's role and pins it; None lifts the pin and leaves the role. Raises as `control_stub` does."""
    wanted = "ROLE_UNSPECIFIED" if role is None else f"ROLE_{role.name}"
    request = control_pb2.SetRoleRequest(worker=worker, role=wanted, actor=actor)
    with control_stub(grpc_address) as stub:
        yield from to_the_last(grpc_address, stub.SetRole(request, timeout=WATCH_TIMEOUT_S))


def rebalance_roles(
    grpc_address: str, num_prefill: int, num_decode: int, actor: str, *, is_dry_run: bool = False
) -> Progress:
    """Brings about a split and pins every worker; a dry run says what it would do. Raises as `control_stub` does."""
    request = control_pb2.RebalanceRolesRequest(
        num_prefill=num_prefill, num_decode=num_decode, actor=actor, dry_run=is_dry_run
    )
    with control_stub(grpc_address) as stub:
        yield from to_the_last(grpc_address, stub.RebalanceRoles(request, timeout=WATCH_TIMEOUT_S))


def drain_worker(grpc_address: str, worker: str, actor: str) -> Progress:
    """Gives a worker no new work and moves what it has elsewhere. Raises as `control_stub` does."""
    request = control_pb2.DrainWorkerRequest(worker=worker, actor=actor)
    with control_stub(grpc_address) as stub:
        yield from to_the_last(grpc_address, stub.DrainWorker(request, timeout=WATCH_TIMEOUT_S))


def uncordon_worker(grpc_address: str, worker: str, actor: str) -> None:
    """Lets a drained worker have work again. Raises as `control_stub` does."""
    with control_stub(grpc_address) as stub:
        stub.UncordonWorker(control_pb2.UncordonWorkerRequest(worker=worker, actor=actor), timeout=ORDER_TIMEOUT_S)


def set_auto_roles(grpc_address: str, actor: str, *, is_auto: bool) -> list[str]:
    """Has the controller decide, or not; returns the names of pinned workers. Raises as `control_stub` does."""
    with control_stub(grpc_address) as stub:
        request = control_pb2.SetAutoRolesRequest(is_auto=is_auto, actor=actor)
        answer = stub.SetAutoRoles(request, timeout=ORDER_TIMEOUT_S)
    return list(answer.pinned)


def to_the_last(grpc_address: str, stream: Iterator[Answer]) -> Progress:
    """Where an order stands, up to its end. Raises UnreachableError when the router stops before."""
    for answer in stream:
        yield answer.progress
        if answer.progress.is_last:
            return
    raise UnreachableError(f"the router at {grpc_address} stopped telling how the order goes")
