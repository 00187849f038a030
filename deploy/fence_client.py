"""What the supervisor asks a router and tells it, over gRPC."""

from collections.abc import Sequence
from dataclasses import dataclass

from baton.v1 import common_pb2, control_pb2

from core.ids import WorkerId
from core.members import MemberStatus
from core.processes import RankProcess
from deploy.all_routers import Silence
from deploy.status_client import TIMEOUT_S, get_status, membership_stub
from router import hello_wire, member_wire
from rpc.security import OPEN, RpcSecurity


@dataclass(frozen=True, slots=True)
class FenceClient:
    """Implements `deploy.all_routers.RouterFence` and `deploy.router_drain.DrainingRouter`.

    Attributes:
        cluster_address: `host:port` of the router's cluster port.
        security: of that port.
        processes: of the router; those of another start tell another client from this one.
    """

    cluster_address: str
    security: RpcSecurity = OPEN
    processes: tuple[RankProcess, ...] = ()

    def silences(self) -> dict[WorkerId, Silence]:
        """How long it has not heard each worker that has attached; of refused ones nothing. Raises as `met` does."""
        return {worker: silence for worker, silence in self.met().items() if silence.processes and silence.counts}

    def met(self) -> dict[WorkerId, Silence]:
        """See `RouterFence.met`."""
        request = control_pb2.ListSilentWorkersRequest(silent_s=0.0)
        with membership_stub(self.cluster_address, self.security) as stub:
            answer = stub.ListSilentWorkers(request, timeout=TIMEOUT_S)
        return {
            WorkerId(silent.worker.name, silent.worker.incarnation): Silence(
                silent.silent_s,
                tuple(map(hello_wire.process_from_proto, silent.processes)),
                counts=not silent.is_refused,
            )
            for silent in answer.workers
        }

    def worker_gone(self, worker: WorkerId) -> None:
        """See `RouterFence.worker_gone`."""
        message = common_pb2.WorkerId(name=worker.name, incarnation=worker.incarnation)
        with membership_stub(self.cluster_address, self.security) as stub:
            stub.ReportWorkerGone(control_pb2.ReportWorkerGoneRequest(worker=message), timeout=TIMEOUT_S)

    def leave(self, drain_timeout_s: float) -> None:
        """See `DrainingRouter.leave`."""
        request = control_pb2.LeaveRouterRequest(drain_timeout_s=drain_timeout_s)
        with membership_stub(self.cluster_address, self.security) as stub:
            stub.LeaveRouter(request, timeout=TIMEOUT_S)

    def num_requests(self) -> int:
        """See `DrainingRouter.num_requests`."""
        return int(get_status(self.cluster_address, self.security).active_requests)

    def report_members(self, members: Sequence[MemberStatus]) -> None:
        """Tells the router how all processes of the cluster are.

        Raises:
            UnreachableError: it does not answer.
            BatonError: it says what is wrong with that.
        """
        request = control_pb2.ReportMembersRequest(members=map(member_wire.member_to_proto, members))
        with membership_stub(self.cluster_address, self.security) as stub:
            stub.ReportMembers(request, timeout=TIMEOUT_S)
