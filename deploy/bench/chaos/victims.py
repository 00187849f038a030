"""The processes of a running cluster, as its status and its ports tell them, and orders about roles."""

import contextlib

import psutil
from baton.v1 import control_pb2

from core.errors import BatonError
from core.request import Role
from deploy import roles_client
from deploy.bench.chaos.wind import Processes
from deploy.cluster_processes import listeners, processes_of
from deploy.status_client import get_status

ACTOR = "baton bench"
MIN_ROUTERS = 2  # with fewer nobody would go on with a router's requests


class ClusterVictims:
    """Implements `deploy.bench.chaos.wind.Victims` for a cluster that descends from this process.

    Args:
        grpc_address: of its routers' gRPC services.
        http_port: that they share.
    """

    def __init__(self, grpc_address: str, http_port: int) -> None:
        self._grpc_address = grpc_address
        self._http_port = http_port

    def workers(self) -> Processes:
        """Those that are attached."""
        return attached(self._grpc_address)

    def routers(self) -> Processes:
        """Those that listen, if there are several; named by their pids."""
        found = {f"router-{process.pid}": [process] for process in listeners(self._http_port, psutil.Process())}
        return found if len(found) >= MIN_ROUTERS else {}

    def is_watched(self, worker: str) -> bool:
        """Whether it is attached still."""
        return worker in self.workers()

    def flip(self, worker: str, role: Role) -> bool:
        """Orders another role and does not wait for what comes of it."""
        return order_role(self._grpc_address, worker, role)


def statuses(grpc_address: str) -> list[control_pb2.WorkerStatus]:
    """Of the attached workers; none while no router answers."""
    with contextlib.suppress(BatonError):
        return list(get_status(grpc_address).workers)
    return []


def attached(grpc_address: str) -> Processes:
    """The processes of attached workers; none while no router answers."""
    return {worker.hello.endpoint.worker.name: processes_of(worker) for worker in statuses(grpc_address)}


def order_role(grpc_address: str, worker: str, role: Role) -> bool:
    """Orders another role of a worker; whether a router took the order, which may fail later all the same."""
    progress = roles_client.set_role(grpc_address, worker, role, ACTOR)
    try:
        return bool(next(progress, None))
    except BatonError:
        return False
    finally:
        progress.close()
