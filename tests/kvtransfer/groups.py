"""Whole workers in this process: a carrier per rank that the test drives, bytes by copy."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import torch
from torch import Tensor

from core.clock import ManualClock
from core.errors import HandoffError
from core.ids import WorkerId, rank_id
from engine.kv.layout import KvLayout
from engine.kv.progress import StepProgress
from kvtransfer.carrier import Carrier
from kvtransfer.geometry import RankGeometry, WorkerGeometry
from kvtransfer.group_mover import GroupMover, PeerLink
from kvtransfer.local_transport import LocalTransport
from kvtransfer.memory import RankMemory
from kvtransfer.move import Move, MoveOutcome, OnMoved
from kvtransfer.packing import BlockPart, as_blocks
from kvtransfer.rank_mover import OnSummed, RankMove, RankPeer
from kvtransfer.transport import Transport

LOCAL = "local"

OpenTransports = Callable[[WorkerId, RankMemory], Mapping[str, Transport]]


@dataclass(frozen=True)
class Division:
    """How a worker's KV is divided; small numbers."""

    tensor_parallel_size: int = 1
    num_partitions: int = 1
    block_tokens: int = 16
    blocks_per_partition: int = 12


def geometry(division: Division, total_heads: int = 2, num_layers: int = 3) -> WorkerGeometry:
    layout = KvLayout(
        num_layers, max(1, total_heads // division.tensor_parallel_size), division.block_tokens, 4, "bfloat16"
    )
    return WorkerGeometry(
        layout,
        total_heads,
        division.tensor_parallel_size,
        division.num_partitions,
        division.blocks_per_partition * division.num_partitions,
    )


def local_transports(neighbours: dict[WorkerId, RankMemory]) -> OpenTransports:
    """Opens transports between ranks that share these neighbours."""
    return lambda rank, memory: {LOCAL: LocalTransport(rank, memory, neighbours)}


def bits(blocks: Tensor) -> Tensor:
    """Random bytes may be no number, which equals nothing."""
    return blocks.view(torch.int16)


def random_memory(rank: RankGeometry, staging_bytes: int) -> RankMemory:
    pool = torch.randint(0, 256, (rank.num_blocks, rank.layout.block_bytes), dtype=torch.uint8)
    return RankMemory(pool, torch.full((staging_bytes,), 255, dtype=torch.uint8))


class DrivenMover:
    """Implements `RankMover` over a carrier, on the caller's thread; moves go on when `drive` says so."""

    def __init__(self, carrier: Carrier) -> None:
        self.carrier = carrier

    def offers(self) -> Mapping[str, bytes]:
        return self.carrier.offers()

    def add_peer(self, peer: RankPeer) -> "Future[str]":
        future: Future[str] = Future()
        try:
            future.set_result(self.carrier.add_peer(peer))
        except HandoffError as error:
            future.set_exception(error)
        return future

    def remove_peer(self, peer: WorkerId, *, is_dead: bool) -> "Future[None]":
        future: Future[None] = Future()
        self.carrier.remove_peer(peer, is_dead=is_dead)
        future.set_result(None)
        return future

    def move(self, move: RankMove, on_moved: OnMoved) -> None:
        self.carrier.move(move, on_moved)

    def checksums(self, parts: Sequence[BlockPart], on_summed: OnSummed) -> None:
        on_summed(self.carrier.checksums(parts))

    def set_inbound(self, _num_inbound: int) -> None:
        raise AssertionError("nothing is inbound of a local transport")

    def close(self) -> None:
        self.carrier.close()


class Group:
    """A worker with random KV; ranks that hold the same heads hold the same bytes."""

    def __init__(
        self,
        worker: WorkerId,
        geometry: WorkerGeometry,
        open_transports: OpenTransports,
        staging_bytes: int = 1 << 20,
    ) -> None:
        self.worker = worker
        self.geometry = geometry
        self.progress = StepProgress(geometry.layout.num_layers)
        self.memories = [random_memory(geometry.rank(rank), staging_bytes) for rank in range(geometry.num_ranks)]
        self._share_replicas()
        self.carriers = [
            Carrier(
                open_transports(rank_id(worker, rank), memory),
                memory,
                geometry.rank(rank),
                self.progress,
                ManualClock(),
            )
            for rank, memory in enumerate(self.memories)
        ]
        self.mover = GroupMover([DrivenMover(carrier) for carrier in self.carriers], geometry)

    def connect(self, peer: "Group") -> None:
        link = PeerLink(LOCAL, peer.mover.offers()[LOCAL], peer.geometry)
        assert self.mover.add_peer(peer.worker, link).result(0) == "memory"

    def drive(self) -> None:
        """Advances all ranks until nothing more happens."""
        while sum(carrier.advance() for carrier in self.carriers):
            pass

    def blocks(self, rank: int) -> Tensor:
        """`[num_blocks, num_layers, 2, kv_heads, block_tokens, head_dim]` of a rank."""
        return as_blocks(self.memories[rank].pool, self.geometry.rank(rank))

    def token(self, block_ids: Sequence[int], index: int, head: int, layers: slice = slice(None)) -> Tensor:
        """`[num_layers, 2, head_dim]`: KV of one token of a sequence and one head of the model."""
        block_id = block_ids[index // self.geometry.layout.block_tokens]
        (rank, *_) = self.holders(block_id, head)
        local = block_id % self.geometry.blocks_per_partition
        first_head = self.geometry.rank(rank).first_head
        return self.blocks(rank)[local, layers, :, head - first_head, index % self.geometry.layout.block_tokens]

    def holders(self, block_id: int, head: int) -> list[int]:
        """Ranks that have a head of a block."""
        ranks = self.geometry.ranks_of(block_id // self.geometry.blocks_per_partition)
        return [r for r in ranks if self.geometry.rank(r).first_head <= head < self.geometry.rank(r).end_head]

    def _share_replicas(self) -> None:
        for rank in range(self.geometry.num_ranks):
            same_heads = rank - rank % self.geometry.num_replicas
            self.memories[rank].pool.copy_(self.memories[same_heads].pool)


def moved(source: Group, move: Move) -> MoveOutcome:
    """Has a move begun, and carries it out."""
    outcomes: list[MoveOutcome] = []
    source.mover.move(move, outcomes.append)
    source.drive()
    (outcome,) = outcomes
    return outcome
