"""What peers ask of this worker's links: to agree on a transport, and to read their KV."""

from baton.v1 import handoff_pb2, handoff_pb2_grpc

from core.errors import BatonError
from kvtransfer.geometry import reconcile
from kvtransfer.group_mover import GroupMover, PeerLink
from worker import link_wire
from worker.deaths import DeathDesk
from worker.identity import WorkerIdentity
from worker.negotiation import Agreement, Introduction, choose_transport
from worker.peers import Peers
from worker.reads import ReadDesk
from worker.rpc_errors import Context, abort


class LinkService(handoff_pb2_grpc.LinkServiceServicer):
    """Serves `LinkService`. Lives on the event loop.

    Args:
        identity: calls for another incarnation are refused.
        peers: learn of sources.
        mover: says how this worker's KV lies, and what transports it has.
        reads: carries reads out.
        deaths: hears that earlier incarnations of a source are dead.
    """

    def __init__(
        self,
        identity: WorkerIdentity,
        peers: Peers,
        mover: GroupMover,
        reads: ReadDesk,
        deaths: DeathDesk,
    ) -> None:
        self._identity = identity
        self._peers = peers
        self._mover = mover
        self._offers = mover.offers()
        self._reads = reads
        self._deaths = deaths

    async def ConnectPeer(  # noqa: N802 - the name is the service's
        self, request: handoff_pb2.ConnectPeerRequest, context: Context
    ) -> handoff_pb2.ConnectPeerResponse:
        """Checks that KV can be shared, chooses a transport, and says how this worker is reached over it."""
        try:
            agreed = await self._agree(link_wire.introduction_from_proto(request))
        except BatonError as error:
            await abort(context, error)
        return link_wire.agreement_to_proto(agreed)

    async def ReadBlocks(  # noqa: N802 - the name is the service's
        self, request: handoff_pb2.ReadBlocksRequest, context: Context
    ) -> handoff_pb2.ReadBlocksResponse:
        """Answers when the read has ended."""
        order = link_wire.read_order_from_proto(request)
        try:
            self._identity.check_target(order.target)
        except BatonError as error:
            await abort(context, error)
        return link_wire.read_answer_to_proto(await self._reads.read(order))

    async def _agree(self, them: Introduction) -> Agreement:
        self._identity.check_target(them.target)
        self._identity.check_model(them.source, them.fingerprint)
        reconcile(self._mover.geometry, them.geometry)
        name = choose_transport(them.source, them.offers, self._offers)
        self._deaths.worker_superseded(them.source)
        await self._peers.expect(them.source, PeerLink(name, them.offers[name], them.geometry, is_expected=True))
        return Agreement(name, self._offers[name], self._mover.geometry)
