"""The calls of `ControlService` that restart processes. Not what they do: that is `router.roles.restarts`."""

from collections.abc import AsyncIterator

from baton.v1 import control_pb2

from core.errors import BatonError
from router.auth.caller import current_caller
from router.roles.restarts import RestartOrder
from router.roles.router_restarts import Restarts
from router.rpc.context import Context, abort
from router.rpc.role_calls import told


class RestartCalls:
    """A part of `ControlService`.

    Args:
        restarts: who carries out.
    """

    def __init__(self, restarts: Restarts) -> None:
        self._restarts = restarts

    @property
    def router_id(self) -> str:
        """Of this router."""
        return self._restarts.routers.router_id

    async def RestartWorkers(  # noqa: N802 - the name is the service's
        self, request: control_pb2.RestartWorkersRequest, context: Context
    ) -> AsyncIterator[control_pb2.RestartWorkersResponse]:
        """What `baton restart` orders of workers."""
        try:
            order = RestartOrder(
                workers=tuple(request.workers),
                drain_timeout_s=request.drain_timeout_s if request.HasField("drain_timeout_s") else None,
                max_unavailable=request.max_unavailable or 1,
                is_forced=request.is_forced,
            )
        except BatonError as error:
            await abort(context, error)
        async for message in told(
            self._restarts.workers.restart(order, current_caller().actor(request.actor)), context
        ):
            yield control_pb2.RestartWorkersResponse(progress=message)

    async def RestartRouters(  # noqa: N802 - the name is the service's
        self, request: control_pb2.RestartRoutersRequest, context: Context
    ) -> AsyncIterator[control_pb2.RestartRoutersResponse]:
        """What `baton restart` orders of routers."""
        timeout_s = request.drain_timeout_s if request.HasField("drain_timeout_s") else None
        actor = current_caller().actor(request.actor)
        async for message in told(self._restarts.routers.restart(actor, timeout_s), context):
            yield control_pb2.RestartRoutersResponse(progress=message, router_id=self.router_id)
