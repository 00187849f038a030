"""The gRPC services for workers and their supervisor (registration, deaths), and for the command line."""

import asyncio

from baton.v1 import control_pb2, control_pb2_grpc

from core.clock import Clock
from core.errors import BatonError
from router import expert_wire, hello_wire, transfer_wire, wire
from router.departure import RouterDeparture
from router.dispatch.dispatcher import FleetDispatcher
from router.fleet.by_name import link_named
from router.fleet.fleet import Fleet
from router.roles.operations import RoleOperations
from router.roles.restarts import WorkerRestarts
from router.roles.router_restarts import RouterRestarts
from router.rpc.context import Context, abort
from router.rpc.restart_calls import RestartCalls
from router.rpc.role_calls import RoleCalls


class MembershipService(control_pb2_grpc.MembershipServiceServicer):
    """Serves `MembershipService`, on the cluster port only: whoever reports a death is believed."""

    def __init__(self, fleet: Fleet, dispatcher: FleetDispatcher, departure: RouterDeparture) -> None:
        self._fleet = fleet
        self._dispatcher = dispatcher
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

    async def LeaveRouter(  # noqa: N802 - the name is the service's
        self, request: control_pb2.LeaveRouterRequest, _context: Context
    ) -> control_pb2.LeaveRouterResponse:
        """How another router has this one restarted."""
        self._departure.order(request.drain_timeout_s if request.HasField("drain_timeout_s") else None)
        return control_pb2.LeaveRouterResponse(active_requests=self._dispatcher.num_active)


class ControlService(RoleCalls, RestartCalls, control_pb2_grpc.ControlServiceServicer):
    """Serves `ControlService`.

    Args:
        model: served model name.
        fleet: the workers there are.
        dispatcher: has answers generated.
        roles: carries out orders about roles.
        clock: the one that decisions are dated by.
        restarts: restarts workers.
        router_restarts: restarts routers.
        drain_timeout_s: that each of them gets when an order does not say it.
    """

    def __init__(
        self,
        model: str,
        fleet: Fleet,
        dispatcher: FleetDispatcher,
        roles: RoleOperations,
        clock: Clock,
        *,
        restarts: WorkerRestarts,
        router_restarts: RouterRestarts,
        drain_timeout_s: float,
    ) -> None:
        RoleCalls.__init__(self, roles, clock)
        RestartCalls.__init__(self, restarts, router_restarts, drain_timeout_s)
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
            router_id=self._router_restarts.router_id,
            workers=[
                control_pb2.WorkerStatus(
                    hello=hello_wire.hello_to_proto(link.attached),
                    load=wire.load_to_proto(link.load),
                    silent_s=self._fleet.silent_s(link),
                    transfers=transfer_wire.transfers_to_proto(link.transfers),
                )
                for link in self._fleet.links()
            ],
        )

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
