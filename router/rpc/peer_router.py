"""Another router, called on its cluster port."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
from baton.v1 import control_pb2, control_pb2_grpc

from core.errors import UnreachableError
from router.roles.router_restarts import RouterStatus
from rpc.channels import open_channel
from rpc.security import RpcSecurity

CALL_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class PeerRouter:
    """Implements `router.roles.router_restarts.OtherRouter`.

    Attributes:
        name: as the cluster's supervisor calls it.
        address: `host:port` of its cluster port, the same after every start.
        security: of that port.
    """

    name: str
    address: str
    security: RpcSecurity

    async def status(self) -> RouterStatus:
        """See `OtherRouter.status`."""
        async with self._calling() as channel:
            stub = control_pb2_grpc.ControlServiceStub(channel)
            answer = await stub.GetStatus(control_pb2.GetStatusRequest(), timeout=CALL_TIMEOUT_S)
        return RouterStatus(answer.router_id, answer.active_requests, not answer.unready_reason)

    async def leave(self, drain_timeout_s: float | None) -> None:
        """See `OtherRouter.leave`."""
        request = control_pb2.LeaveRouterRequest(drain_timeout_s=drain_timeout_s)
        async with self._calling() as channel:
            await control_pb2_grpc.MembershipServiceStub(channel).LeaveRouter(request, timeout=CALL_TIMEOUT_S)

    @asynccontextmanager
    async def _calling(self) -> AsyncIterator[grpc.aio.Channel]:
        async with open_channel(self.address, self.security) as channel:
            try:
                yield channel
            except grpc.aio.AioRpcError as error:
                said = f"{error.code().name}: {error.details()}"
                raise UnreachableError(f"{self.name} at {self.address} does not answer: {said}") from error
