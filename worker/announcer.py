"""Tells routers that this worker exists, again and again until they attach."""

import asyncio
import logging

import grpc
from baton.v1 import control_pb2, control_pb2_grpc

from core.crash import die
from core.errors import StaleEpochError
from core.ids import WorkerEndpoint
from rpc.channels import open_channel
from rpc.limits import Options
from rpc.security import OPEN, RpcSecurity
from worker import wire
from worker.attach_service import AttachService
from worker.rpc_errors import code_of

REGISTER_TIMEOUT_S = 2.0
RETRY_S = 0.5  # while no router is attached: start-up waits for this
RECHECK_S = 2.0  # while one is: a restarted router hears of this worker within this time
# Once a router is back it is found within a round: gRPC would wait longer the longer it was away, up to two minutes.
CHANNEL_OPTIONS: Options = (("grpc.initial_reconnect_backoff_ms", 500), ("grpc.max_reconnect_backoff_ms", 2000))

REFUSED = (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNAUTHENTICATED)

logger = logging.getLogger(__name__)


async def announce(
    endpoint: WorkerEndpoint, routers: tuple[str, ...], attached: AttachService, security: RpcSecurity = OPEN
) -> None:
    """Registers with every router for ever; registering twice changes nothing.

    Ends the process when a router says that it was replaced or found dead: others have given its blocks to somebody
    else on that word, so it must not go on.

    Args:
        endpoint: this worker.
        routers: `host:port` of each router's cluster port.
        attached: says whether somebody has attached.
        security: of the routers' cluster ports.
    """
    request = control_pb2.RegisterWorkerRequest(endpoint=wire.endpoint_to_proto(endpoint))
    channels = [open_channel(address, security, CHANNEL_OPTIONS) for address in routers]
    stubs = [control_pb2_grpc.MembershipServiceStub(channel) for channel in channels]
    try:
        while True:
            for stub in stubs:
                await _register(stub, request)
            await asyncio.sleep(RECHECK_S if attached.is_attached() else RETRY_S)
    finally:
        for channel in channels:
            await channel.close()


async def _register(stub: control_pb2_grpc.MembershipServiceStub, request: control_pb2.RegisterWorkerRequest) -> None:
    try:
        await stub.RegisterWorker(request, timeout=REGISTER_TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        if code_of(error) == StaleEpochError.code:
            logger.critical("%s", error.details())
            die()
        if error.code() in REFUSED:
            logger.error("the router refuses this worker: %s", error.details())  # noqa: TRY400 - no trace: not our bug
        else:
            logger.debug("the router cannot be reached yet: %s", error.details())
