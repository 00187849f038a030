"""What the supervisor asks a router and tells it, over gRPC."""

from dataclasses import dataclass

from baton.v1 import common_pb2, control_pb2, worker_pb2

from core.ids import WorkerId
from core.processes import ProcessId, RankProcess
from deploy.status_client import TIMEOUT_S, membership_stub
from rpc.security import OPEN, RpcSecurity


@dataclass(frozen=True, slots=True)
class FenceClient:
    """Implements `deploy.supervisor.Fence`.

    Attributes:
        cluster_address: `host:port` of the router's cluster port.
        security: of that port.
    """

    cluster_address: str
    security: RpcSecurity = OPEN

    def silent_workers(self, for_s: float) -> dict[WorkerId, tuple[RankProcess, ...]]:
        """See `Fence.silent_workers`."""
        request = control_pb2.ListSilentWorkersRequest(silent_s=for_s)
        with membership_stub(self.cluster_address, self.security) as stub:
            answer = stub.ListSilentWorkers(request, timeout=TIMEOUT_S)
        return {
            WorkerId(silent.worker.name, silent.worker.incarnation): tuple(map(_process, silent.processes))
            for silent in answer.workers
        }

    def worker_gone(self, worker: WorkerId) -> None:
        """See `Fence.worker_gone`."""
        message = common_pb2.WorkerId(name=worker.name, incarnation=worker.incarnation)
        with membership_stub(self.cluster_address, self.security) as stub:
            stub.ReportWorkerGone(control_pb2.ReportWorkerGoneRequest(worker=message), timeout=TIMEOUT_S)


def _process(message: worker_pb2.RankProcess) -> RankProcess:
    return RankProcess(message.node, ProcessId(message.pid, message.started_s))
