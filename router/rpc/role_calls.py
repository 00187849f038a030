"""The calls of `ControlService` that concern roles. Not what they do: that is `RoleOperations`."""

from collections.abc import AsyncIterator

from baton.v1 import control_pb2

from core.clock import Clock
from core.errors import BatonError
from router.auth.caller import current_caller
from router.roles.changes import RoleProgress
from router.roles.operations import RoleOperations
from router.rpc import role_wire
from router.rpc.context import Context, abort


class RoleCalls:
    """A part of `ControlService`.

    Args:
        roles: who carries out.
        clock: the one that decisions are dated by.
    """

    def __init__(self, roles: RoleOperations, clock: Clock) -> None:
        self._roles = roles
        self._clock = clock

    async def GetRoles(  # noqa: N802 - the name is the service's
        self, _request: control_pb2.GetRolesRequest, _context: Context
    ) -> control_pb2.GetRolesResponse:
        """What `baton roles show` shows."""
        return control_pb2.GetRolesResponse(
            workers=[role_wire.worker_to_proto(worker) for worker in self._roles.workers()],
            is_auto=self._roles.is_auto,
            is_leader=self._roles.is_leader,
            ttft_limit_s=self._roles.limits.ttft_s,
            tpot_limit_s=self._roles.limits.tpot_s,
            alarms=self._roles.alarms(),
        )

    async def SetRole(  # noqa: N802 - the name is the service's
        self, request: control_pb2.SetRoleRequest, context: Context
    ) -> AsyncIterator[control_pb2.SetRoleResponse]:
        """What `baton roles set` orders."""
        try:
            role = role_wire.wished_role(request.role)
        except BatonError as error:
            await abort(context, error)
        progress = self._roles.set_role(
            request.worker,
            role,
            current_caller().actor(request.actor),
            epoch=request.role_epoch,
            incarnation=request.incarnation,
        )
        async for message in told(progress, context):
            yield control_pb2.SetRoleResponse(progress=message)

    async def RebalanceRoles(  # noqa: N802 - the name is the service's
        self, request: control_pb2.RebalanceRolesRequest, context: Context
    ) -> AsyncIterator[control_pb2.RebalanceRolesResponse]:
        """What `baton roles rebalance` orders."""
        progress = self._roles.rebalance(
            request.num_prefill, request.num_decode, current_caller().actor(request.actor), is_dry_run=request.dry_run
        )
        async for message in told(progress, context):
            yield control_pb2.RebalanceRolesResponse(progress=message)

    async def DrainWorker(  # noqa: N802 - the name is the service's
        self, request: control_pb2.DrainWorkerRequest, context: Context
    ) -> AsyncIterator[control_pb2.DrainWorkerResponse]:
        """What `baton drain` orders."""
        async for message in told(self._roles.drain(request.worker, current_caller().actor(request.actor)), context):
            yield control_pb2.DrainWorkerResponse(progress=message)

    async def UncordonWorker(  # noqa: N802 - the name is the service's
        self, request: control_pb2.UncordonWorkerRequest, context: Context
    ) -> control_pb2.UncordonWorkerResponse:
        """What `baton uncordon` orders."""
        try:
            await self._roles.uncordon(request.worker, current_caller().actor(request.actor))
        except BatonError as error:
            await abort(context, error)
        return control_pb2.UncordonWorkerResponse()

    async def SetAutoRoles(  # noqa: N802 - the name is the service's
        self, request: control_pb2.SetAutoRolesRequest, context: Context
    ) -> control_pb2.SetAutoRolesResponse:
        """What `baton roles auto` orders."""
        try:
            pinned = await self._roles.set_auto(current_caller().actor(request.actor), is_auto=request.is_auto)
        except BatonError as error:
            await abort(context, error)
        return control_pb2.SetAutoRolesResponse(pinned=pinned)

    async def ListRoleDecisions(  # noqa: N802 - the name is the service's
        self, request: control_pb2.ListRoleDecisionsRequest, _context: Context
    ) -> control_pb2.ListRoleDecisionsResponse:
        """What `baton roles why` shows."""
        now_s = self._clock.now_s()
        decisions = self._roles.decisions(request.limit)
        return control_pb2.ListRoleDecisionsResponse(
            decisions=[role_wire.decision_to_proto(decision, now_s) for decision in decisions]
        )

    async def ListRoleChanges(  # noqa: N802 - the name is the service's
        self, request: control_pb2.ListRoleChangesRequest, _context: Context
    ) -> control_pb2.ListRoleChangesResponse:
        """What `baton roles history` shows."""
        changes = self._roles.changes(request.limit)
        return control_pb2.ListRoleChangesResponse(changes=[role_wire.change_to_proto(change) for change in changes])

    async def ListOperatorActions(  # noqa: N802 - the name is the service's
        self, request: control_pb2.ListOperatorActionsRequest, _context: Context
    ) -> control_pb2.ListOperatorActionsResponse:
        """What `baton roles log` shows."""
        actions = self._roles.actions(request.limit)
        return control_pb2.ListOperatorActionsResponse(
            actions=[role_wire.action_to_proto(action) for action in actions]
        )


async def told(progress: AsyncIterator[RoleProgress], context: Context) -> AsyncIterator[control_pb2.RoleProgress]:
    """What happens, as messages; an order that cannot be carried out ends the call with its error."""
    try:
        async for each in progress:
            yield role_wire.progress_to_proto(each)
    except BatonError as error:
        await abort(context, error)
