"""Orders to a running cluster, and waiting for what becomes of them. Every wait has a deadline."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from baton.v1 import control_pb2

from core.errors import InternalError, UnavailableError
from core.processes import ProcessId
from core.request import Role
from deploy import roles_client
from deploy.config import ServeConfig
from deploy.processes import kill_processes
from deploy.roles_client import Progress
from deploy.status_client import get_status
from router.roles.changes import CONTROLLER

ACTOR = "baton bench"
POLL_S = 0.05  # what is waited for takes seconds
WAIT_S = 300.0  # the longest that streams of these benchmarks take to end


@dataclass(frozen=True, slots=True)
class FleetDriver:
    """One cluster.

    Attributes:
        grpc_address: `host:port` of its router's gRPC services.
    """

    grpc_address: str

    def status(self) -> control_pb2.GetStatusResponse:
        """What the router says now."""
        return get_status(self.grpc_address)

    def worker(self, name: str) -> control_pb2.WorkerStatus | None:
        """One worker; None while it is not attached."""
        return next((w for w in self.status().workers if w.hello.endpoint.worker.name == name), None)

    def flip(self, worker: str, role: Role) -> control_pb2.RoleChange:
        """Has a worker take a role; returns how that went when it is verified, or changed and without work.

        Raises:
            InternalError: it failed.
            BatonError: it was refused.
        """
        last = self._to_the_end(roles_client.set_role(self.grpc_address, worker, role, ACTOR))
        return last.change

    def rebalance(self, num_prefill: int, num_decode: int) -> None:
        """Brings about a split. Raises as `flip` does."""
        self._to_the_end(roles_client.rebalance_roles(self.grpc_address, num_prefill, num_decode, ACTOR))

    def set_auto(self, *, is_auto: bool) -> None:
        """Has roles follow the load, those of pinned workers, too; or not."""
        if is_auto:
            for worker in roles_client.get_roles(self.grpc_address).workers:
                if worker.state.is_pinned:
                    self.unpin(worker.worker.name)
        roles_client.set_auto_roles(self.grpc_address, ACTOR, is_auto=is_auto)

    def unpin(self, worker: str) -> None:
        """Leaves a worker's role to the controller. Raises as `flip` does."""
        self._to_the_end(roles_client.set_role(self.grpc_address, worker, None, ACTOR))

    def num_changes_since(self, unix_s: float) -> int:
        """Changes of role that the controller has ordered since."""
        changes = roles_client.list_changes(self.grpc_address, 0).changes
        return sum(change.actor == CONTROLLER and change.ordered_at >= unix_s for change in changes)

    def kill(self, worker: str) -> int:
        """Kills all processes of a worker, for Ray to start it again; returns the incarnation that died."""
        status = self.worker(worker)
        assert status is not None, f"{worker} is attached"
        if not kill_processes(ProcessId(rank.pid, rank.started_s) for rank in status.hello.processes):
            raise InternalError(f"the processes of {worker} could not be killed")
        return int(status.hello.endpoint.worker.incarnation)

    def wait_until(self, is_true: Callable[[control_pb2.GetStatusResponse], bool], what: str) -> None:
        """Waits until something holds.

        Raises:
            UnavailableError: it does not after `WAIT_S`.
        """
        deadline_s = time.monotonic() + WAIT_S
        while not is_true(self.status()):
            if time.monotonic() > deadline_s:
                raise UnavailableError(f"after {WAIT_S:g} s still not so: {what}")
            time.sleep(POLL_S)

    @staticmethod
    def _to_the_end(progress: Progress) -> control_pb2.RoleProgress:
        *_, last = progress
        if last.stage not in (control_pb2.ROLE_STAGE_CHANGED, control_pb2.ROLE_STAGE_VERIFIED):
            raise InternalError(f"an order about roles failed: {last.worker}: {last.message}")
        return last


def three_workers(model_dir: Path) -> ServeConfig:
    """One prefill and two decode workers that keep their roles, on free ports; without prefix cache."""
    return ServeConfig(
        model=model_dir,
        served_model_name="bench",
        decode=2,
        enable_prefix_caching=False,
        auto_roles=False,
        port=0,
        ask="",
    )


def num_running(status: control_pb2.GetStatusResponse) -> int:
    """Sequences that all workers generate."""
    return sum(worker.load.running_sequences for worker in status.workers)


def is_without_sequences(status: control_pb2.GetStatusResponse, name: str) -> bool:
    """Whether a worker generates nothing and is about to get nothing."""
    loads = [worker.load for worker in status.workers if worker.hello.endpoint.worker.name == name]
    return all(not load.running_sequences and not load.incoming_handoffs for load in loads)


def is_back(status: control_pb2.GetStatusResponse, name: str, dead_incarnation: int) -> bool:
    """Whether a worker is attached again after a death."""
    ids = (worker.hello.endpoint.worker for worker in status.workers)
    return any(worker.name == name and worker.incarnation > dead_incarnation for worker in ids)
