"""Has a router restart workers and routers, over gRPC."""

import contextlib
import time
from collections.abc import Sequence

from baton.v1 import control_pb2

from core.errors import UnavailableError, UnreachableError
from deploy.roles_client import WATCH_TIMEOUT_S, Progress, to_the_last
from deploy.status_client import control_stub, get_status

BACK_TIMEOUT_S = 120.0  # for a router that has left to listen again; it loads a tokenizer
BACK_POLL_S = 0.2


def restart_workers(
    grpc_address: str,
    workers: Sequence[str],
    actor: str,
    *,
    drain_timeout_s: float | None,
    max_unavailable: int,
    is_forced: bool,
) -> Progress:
    """Restarts workers in turn, all for none named. Raises as `control_stub` does."""
    request = control_pb2.RestartWorkersRequest(
        workers=workers,
        actor=actor,
        drain_timeout_s=drain_timeout_s,
        max_unavailable=max_unavailable,
        is_forced=is_forced,
    )
    with control_stub(grpc_address) as stub:
        yield from to_the_last(grpc_address, stub.RestartWorkers(request, timeout=WATCH_TIMEOUT_S))


def restart_routers(grpc_address: str, actor: str, *, drain_timeout_s: float | None) -> Progress:
    """Restarts routers in turn; the one that is asked goes last. Raises as `control_stub` does.

    Raises:
        UnreachableError: no router answers again.
    """
    started_s, before = time.monotonic(), get_status(grpc_address)
    leaving = before.router_id
    request = control_pb2.RestartRoutersRequest(actor=actor, drain_timeout_s=drain_timeout_s)
    with control_stub(grpc_address) as stub:
        for answer in stub.RestartRouters(request, timeout=WATCH_TIMEOUT_S):
            leaving = answer.router_id
            answer.progress.is_last = False  # it is not back yet
            yield answer.progress
    wait_for_other_router(grpc_address, leaving, must_be_ready=not before.unready_reason)
    elapsed_s = time.monotonic() - started_s
    yield control_pb2.RoleProgress(
        stage=control_pb2.ROLE_STAGE_VERIFIED, message="the routers are back", elapsed_s=elapsed_s, is_last=True
    )


def wait_for_other_router(grpc_address: str, leaving: str, *, must_be_ready: bool) -> None:
    """Waits until a router answers that is not the one that leaves.

    Args:
        grpc_address: where routers answer.
        leaving: id of the one that leaves.
        must_be_ready: whether the other one has to have workers of both roles.

    Raises:
        UnreachableError: none does.
    """
    deadline_s = time.monotonic() + BACK_TIMEOUT_S
    while time.monotonic() < deadline_s:
        with contextlib.suppress(UnavailableError):  # it leaves, or its successor does not listen yet
            status = get_status(grpc_address)
            if status.router_id != leaving and not (must_be_ready and status.unready_reason):
                return
        time.sleep(BACK_POLL_S)
    raise UnreachableError(f"no router is ready at {grpc_address} again within {BACK_TIMEOUT_S:g} s; see the logs")
