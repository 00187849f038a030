"""Workers' links over real gRPC in one process: bytes go by copy, over transports that fail when a test says so."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack

import grpc
import pytest
from baton.v1 import handoff_pb2_grpc

from core.clock import ManualClock
from core.errors import HandoffError
from core.ids import WorkerEndpoint, WorkerId
from decode_worker.half import DecodeHalf
from engine.kv.layout import KvLayout
from engine.kv.pool import BlockPool
from engine.kv.progress import StepProgress
from kvtransfer.carrier import Carrier
from kvtransfer.geometry import WorkerGeometry
from kvtransfer.group_mover import GroupMover
from kvtransfer.local_transport import FinishedTransfer, LocalTransport
from kvtransfer.memory import RankMemory, memory_of
from kvtransfer.move import Direction, Move, MoveOutcome
from kvtransfer.mover import BlockMover
from kvtransfer.runs import RunIds, RunTable
from tests.builders import ListOutbox, ListPort, cost_model
from worker.deaths import DeathDesk
from worker.identity import WorkerIdentity
from worker.inbound import InboundCount
from worker.link_service import LinkService
from worker.links import Links
from worker.mailbox import Mailbox
from worker.peers import Peers
from worker.pulling import PullClient
from worker.reads import ReadDesk

FAST, SLOW = "fast", "slow"
LAYOUT = KvLayout(num_layers=2, kv_heads=2, block_tokens=4, head_dim=2, dtype="float32")
NUM_BLOCKS = 16
TIMEOUT_S = 20.0

Neighbours = dict[WorkerId, RankMemory]


class FlakyTransport(LocalTransport):
    """Copies, but for what it is told to fail at.

    Attributes:
        post_errors: raised by the next posts, one each.
        add_errors: raised by the next attempts to add a peer, one each.
        posted: directions of the posts that went well.
    """

    def __init__(self, worker: WorkerId, memory: RankMemory, neighbours: Neighbours) -> None:
        super().__init__(worker, memory, neighbours)
        self.post_errors: deque[HandoffError] = deque()
        self.add_errors: deque[HandoffError] = deque()
        self.posted: list[Direction] = []

    def add_peer(self, peer: WorkerId, metadata: bytes, local: RunTable, remote: RunTable) -> str:
        if self.add_errors:
            raise self.add_errors.popleft()
        return super().add_peer(peer, metadata, local, remote)

    def post(self, peer: WorkerId, direction: Direction, local: RunIds, remote: RunIds) -> FinishedTransfer:
        if self.post_errors:
            raise self.post_errors.popleft()
        self.posted.append(direction)
        return super().post(peer, direction, local, remote)


class End:
    """One worker as its peers see it: a pool, movers, links and services; its halves move when a test lets them."""

    def __init__(
        self,
        worker: WorkerId,
        neighbours: Neighbours,
        *,
        transports: Sequence[str] = (FAST, SLOW),
        layout: KvLayout = LAYOUT,
        fingerprint: str = "f1",
        is_pulled: bool = False,
    ) -> None:
        self.worker = worker
        self.clock = ManualClock()
        self.pool = BlockPool(layout, NUM_BLOCKS, enable_prefix_caching=False)
        self.progress = StepProgress(layout.num_layers)
        self.mailbox = Mailbox()
        self.decode = DecodeHalf(self.pool, ListPort(), ListOutbox(), self.clock, max_num_seqs=4)
        memory = memory_of(self.pool)
        self.transports: Mapping[str, FlakyTransport] = {
            name: FlakyTransport(worker, memory, neighbours) for name in transports
        }
        geometry = WorkerGeometry(layout, layout.kv_heads, 1, 1, NUM_BLOCKS)
        carrier = Carrier(self.transports, memory, geometry.rank(0), self.progress, self.clock)
        self.mover = GroupMover([BlockMover(carrier, on_crash=pytest.fail)], geometry)
        self.server = grpc.aio.server()
        self.endpoint = WorkerEndpoint(worker, f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}")
        self.peers = Peers(worker, fingerprint, self.mover, self.clock)
        self.inbound: list[int] = []
        inbound = InboundCount(self.inbound.append)
        pulling = PullClient(self.endpoint, self.peers, self.progress.has_settled, inbound) if is_pulled else None
        self.links = Links(self.peers, self.mover, asyncio.get_running_loop(), pulling)
        self.reads = ReadDesk(self.links, self.mailbox, self.decode.receiver)
        self.deaths = DeathDesk(self.peers, self.mailbox, asyncio.get_running_loop(), [self.decode.worker_gone])
        self.service = LinkService(self._identity(fingerprint), self.peers, self.mover, self.reads, self.deaths)
        handoff_pb2_grpc.add_LinkServiceServicer_to_server(self.service, self.server)

    async def stop(self) -> None:
        await self.server.stop(grace=None)
        await self.deaths.close()
        await self.reads.close()
        await self.links.close()
        await self.peers.close()
        self.mover.close()

    def pump(self) -> None:
        """Does what others have posted to the worker's loop."""
        for call in self.mailbox.receive(0.0):
            call()

    def _identity(self, fingerprint: str) -> WorkerIdentity:
        return WorkerIdentity(
            endpoint=self.endpoint,
            fingerprint=fingerprint,
            layout=self.pool.layout,
            num_blocks=NUM_BLOCKS,
            vocab_size=100,
            max_num_seqs=4,
            max_model_len=64,
            cost_model=cost_model(),
        )


class LinkWorld:
    """Ends that can reach each other."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._neighbours: Neighbours = {}
        self._ends: list[End] = []

    async def end(self, name: str, incarnation: int = 1, **settings: object) -> End:
        """Another worker, serving."""
        end = End(WorkerId(name, incarnation), self._neighbours, **settings)  # type: ignore[arg-type]
        await end.server.start()
        self._stack.push_async_callback(end.stop)
        self._ends.append(end)
        return end

    async def moved(self, source: End, move: Move) -> MoveOutcome:
        """Orders a move and waits for its end."""
        outcomes: list[MoveOutcome] = []
        source.links.move(move, outcomes.append)
        await self.until(lambda: bool(outcomes))
        (outcome,) = outcomes
        return outcome

    async def until(self, condition: Callable[[], bool], *, is_pumped: bool = True) -> None:
        """Lets everybody work until then; without pumping, workers' loops hang."""
        async with asyncio.timeout(TIMEOUT_S):
            while not condition():
                for end in self._ends if is_pumped else ():
                    end.pump()
                await asyncio.sleep(0.001)


def write(target: End, **changes: object) -> Move:
    """Blocks 5 and 3 of the mover's own pool to blocks 1 and 2 of a target."""
    fields = {"local_ids": [5, 3], "remote_ids": [1, 2], "handoff_id": "h", **changes}
    return Move(target.worker, Direction.WRITE, **fields)  # type: ignore[arg-type]
