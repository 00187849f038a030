"""The gRPC services for workers (registration) and for the command line (status)."""

from baton.v1 import control_pb2, control_pb2_grpc

from core.errors import BatonError
from router import wire
from router.dispatch.dispatcher import FleetDispatcher
from router.fleet.fleet import Fleet
from router.rpc.context import Context, abort


class MembershipService(control_pb2_grpc.MembershipServiceServicer):
    """Serves `MembershipService`."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def RegisterWorker(  # noqa: N802 - the name is the service's
        self, request: control_pb2.RegisterWorkerRequest, context: Context
    ) -> control_pb2.RegisterWorkerResponse:
        """Attaches to a worker, in the background."""
        try:
            self._fleet.register(wire.endpoint_from_proto(request.endpoint))
        except BatonError as error:
            await abort(context, error)
        return control_pb2.RegisterWorkerResponse()


class ControlService(control_pb2_grpc.ControlServiceServicer):
    """Serves `ControlService`."""

    def __init__(self, model: str, fleet: Fleet, dispatcher: FleetDispatcher) -> None:
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
            workers=[
                control_pb2.WorkerStatus(
                    hello=wire.hello_to_proto(link.attached),
                    load=wire.load_to_proto(link.load),
                    silent_s=self._fleet.silent_s(link),
                )
                for link in self._fleet.links()
            ],
        )
