"""The calls of `ControlService` that restart processes. Not what they do: that is `router.roles.restarts`."""

from collections.abc import AsyncIterator

from baton.v1 import control_pb2

from core.errors import BatonError
from router.roles.restarts import RestartOrder, WorkerRestarts
from router.roles.router_restarts import RouterRestarts
from router.rpc.context import Context, abort
from router.rpc.role_calls import told


class RestartCalls:
    """A part of `ControlService`.

    Args:
        restarts: restarts workers.
        router_restarts: restarts routers.
        drain_timeout_s: of each worker, where an order does not say it.
    """

    def __init__(self, restarts: WorkerRestarts, router_restarts: RouterRestarts, drain_timeout_s: float) -> None:
        self._restarts = restarts
        self._router_restarts = router_restarts
        self._drain_timeout_s = drain_timeout_s

    async def RestartWorkers(  # noqa: N802 - the name is the service's
        self, request: control_pb2.RestartWorkersRequest, context: Context
    ) -> AsyncIterator[control_pb2.RestartWorkersResponse]:
        """What `baton restart` orders of workers."""
        has_timeout = request.HasField("drain_timeout_s")
        try:
            order = RestartOrder(
                workers=tuple(request.workers),
                drain_timeout_s=request.drain_timeout_s if has_timeout else self._drain_timeout_s,
                max_unavailable=request.max_unavailable or 1,
                is_forced=request.is_forced,
            )
        except BatonError as error:
            await abort(context, error)
        async for message in told(self._restarts.restart(order, request.actor), context):
            yield control_pb2.RestartWorkersResponse(progress=message)

    async def RestartRouters(  # noqa: N802 - the name is the service's
        self, request: control_pb2.RestartRoutersRequest, context: Context
    ) -> AsyncIterator[control_pb2.RestartRoutersResponse]:
        """What `baton restart` orders of routers."""
        timeout_s = request.drain_timeout_s if request.HasField("drain_timeout_s") else None
        async for message in told(self._router_restarts.restart(request.actor, timeout_s), context):
            yield control_pb2.RestartRoutersResponse(progress=message, router_id=self._router_restarts.router_id)
