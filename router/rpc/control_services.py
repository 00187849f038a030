"""The gRPC services for workers and their supervisor (registration, deaths), and for the command line."""

import asyncio
import time

from baton.v1 import control_pb2, control_pb2_grpc

from core.clock import Clock
from core.errors import BatonError
from core.versions import installed_versions
from router import expert_wire, hello_wire, member_wire, transfer_wire, wire
from router.departure import RouterDeparture
from router.dispatch.dispatcher import FleetDispatcher
from router.fleet.by_name import link_named
from router.fleet.fleet import Fleet
from router.probe import PairProbes, ProbeResult
from router.roles.operations import RoleOperations
from router.roles.router_restarts import Restarts
from router.rpc.context import Context, abort
from router.rpc.restart_calls import RestartCalls
from router.rpc.role_calls import RoleCalls


class MembershipService(control_pb2_grpc.MembershipServiceServicer):
    """Serves `MembershipService`, on the cluster port only: whoever reports a death is believed."""

    def __init__(self, fleet: Fleet, departure: RouterDeparture) -> None:
        self._fleet = fleet
        self._departure = departure

    async def RegisterWorker(  # noqa: N802 - the name is the service's
        self, request: control_pb2.RegisterWorkerRequest, context: Context
    ) -> control_pb2.RegisterWorkerResponse:
        """Attaches to a worker, in the background."""
        try:
            self._fleet.register(wire.endpoint_from_proto(request.endpoint))
        except BatonError as error:
            await abort(context, error)
        return control_pb2.RegisterWorkerResponse()

    async def ListSilentWorkers(  # noqa: N802 - the name is the service's
        self, request: control_pb2.ListSilentWorkersRequest, _context: Context
    ) -> control_pb2.ListSilentWorkersResponse:
        """Whom the supervisor of the workers' processes may have to kill."""
        return control_pb2.ListSilentWorkersResponse(
            workers=[
                control_pb2.SilentWorker(
                    worker=wire.worker_id_to_proto(silent.worker),
                    silent_s=silent.silent_s,
                    processes=[hello_wire.process_to_proto(process) for process in silent.processes],
                    is_refused=silent.is_refused,
                )
                for silent in self._fleet.silent_workers(request.silent_s)
            ]
        )

    async def ReportWorkerGone(  # noqa: N802 - the name is the service's
        self, request: control_pb2.ReportWorkerGoneRequest, context: Context
    ) -> control_pb2.ReportWorkerGoneResponse:
        """Whom the supervisor has killed, or found dead."""
        try:
            self._fleet.worker_gone(wire.worker_id_from_proto(request.worker))
        except BatonError as error:
            await abort(context, error)
        return control_pb2.ReportWorkerGoneResponse()

    async def ReportMembers(  # noqa: N802 - the name is the service's
        self, request: control_pb2.ReportMembersRequest, context: Context
    ) -> control_pb2.ReportMembersResponse:
        """How the supervisor finds all processes of the cluster."""
        try:
            self._fleet.members.report(map(member_wire.member_from_proto, request.members))
        except BatonError as error:
            await abort(context, error)
        return control_pb2.ReportMembersResponse()

    async def LeaveRouter(  # noqa: N802 - the name is the service's
        self, request: control_pb2.LeaveRouterRequest, context: Context
    ) -> control_pb2.LeaveRouterResponse:
        """How another router, or the supervisor, has this one leave."""
        timeout_s = request.drain_timeout_s if request.HasField("drain_timeout_s") else None
        try:
            self._departure.order(timeout_s)
        except BatonError as error:
            await abort(context, error)
        return control_pb2.LeaveRouterResponse()


class ControlService(RoleCalls, RestartCalls, control_pb2_grpc.ControlServiceServicer):
    """Serves `ControlService`.

    Args:
        model: served model name.
        fleet: the workers there are.
        dispatcher: has answers generated.
        roles: carries out orders about roles.
        clock: the one that decisions are dated by.
        probes: try pairs of workers.
        restarts: restart workers and routers.
    """

    def __init__(  # noqa: PLR0917 - collaborators, given once
        self,
        model: str,
        fleet: Fleet,
        dispatcher: FleetDispatcher,
        roles: RoleOperations,
        clock: Clock,
        probes: PairProbes,
        *,
        restarts: Restarts,
    ) -> None:
        RoleCalls.__init__(self, roles, clock)
        RestartCalls.__init__(self, restarts)
        self._probes = probes
        self._model = model
        self._fleet = fleet
        self._dispatcher = dispatcher

    async def GetStatus(  # noqa: N802 - the name is the service's
        self, _request: control_pb2.GetStatusRequest, _context: Context
    ) -> control_pb2.GetStatusResponse:
        """What `baton status` shows."""
        return control_pb2.GetStatusResponse(
            model=self._model,
            unready_reason=self._dispatcher.unready_reason() or "",
            active_requests=self._dispatcher.num_active,
            router_id=self.router_id,
            workers=[
                control_pb2.WorkerStatus(
                    hello=hello_wire.hello_to_proto(link.attached),
                    load=wire.load_to_proto(link.load),
                    silent_s=self._fleet.silent_s(link),
                    transfers=transfer_wire.transfers_to_proto(link.transfers),
                    clock_skew_s=link.clock_skew_s,
                )
                for link in self._fleet.links()
            ],
            members=[member_wire.member_to_proto(member) for member in self._fleet.members],
            versions=installed_versions(),
            unix_s=time.time(),
        )

    async def ProbePair(  # noqa: N802 - the name is the service's
        self, request: control_pb2.ProbePairRequest, context: Context
    ) -> control_pb2.ProbePairResponse:
        """What `baton doctor` asks of every pair."""
        try:
            prefill, decode = (link_named(self._fleet.links(), name) for name in (request.prefill, request.decode))
            result = await self._probes.probe(prefill, decode, request.num_tokens)
        except BatonError as error:
            await abort(context, error)
        return probe_to_proto(result)

    async def GetExperts(  # noqa: N802 - the name is the service's
        self, request: control_pb2.GetExpertsRequest, context: Context
    ) -> control_pb2.GetExpertsResponse:
        """What `baton experts` shows; fails if one of the workers asked does not answer."""
        try:
            links = [link_named(self._fleet.links(), request.worker)] if request.worker else self._fleet.links()
            reports = await asyncio.gather(*(link.experts() for link in links))
        except BatonError as error:
            await abort(context, error)
        return control_pb2.GetExpertsResponse(
            workers=[
                control_pb2.WorkerExperts(worker=link.worker.name, report=expert_wire.expert_report_to_proto(report))
                for link, report in zip(links, reports, strict=True)
            ]
        )

    async def RebalanceExperts(  # noqa: N802 - the name is the service's
        self, request: control_pb2.RebalanceExpertsRequest, context: Context
    ) -> control_pb2.RebalanceExpertsResponse:
        """What `baton experts WORKER --rebalance` orders."""
        try:
            report = await link_named(self._fleet.links(), request.worker).experts(rebalance=True)
        except BatonError as error:
            await abort(context, error)
        return control_pb2.RebalanceExpertsResponse(report=expert_wire.expert_report_to_proto(report))


def probe_to_proto(result: ProbeResult) -> control_pb2.ProbePairResponse:
    """What a probe took."""
    message = control_pb2.ProbePairResponse(
        num_tokens=result.num_tokens, ttft_s=result.ttft_s, second_token_s=result.second_token_s
    )
    if result.moved is not None:
        stats = result.moved.stats
        message.num_bytes, message.busy_s = stats.num_bytes, stats.busy_s
        message.transport, message.path, message.direction = stats.transport, stats.path, result.moved.direction
    return message
