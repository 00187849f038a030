"""A transport without bytes: transfers end when the test says so."""

import threading
from dataclasses import dataclass, field

import torch

from core.errors import HandoffError
from core.ids import WorkerId
from engine.kv.layout import KvLayout
from kvtransfer.geometry import RankGeometry
from kvtransfer.memory import RankMemory
from kvtransfer.move import Direction
from kvtransfer.rank_mover import RankPeer
from kvtransfer.runs import RunIds, RunTable
from kvtransfer.transport import TransferState

TIMEOUT_S = 10.0
PEER, OTHER = WorkerId("decode-0", 1), WorkerId("decode-1", 1)
RANK = RankGeometry(KvLayout(4, 2, 16, 1024, "float32"), first_head=0, num_blocks=16)  # blocks of 1 MiB, 4 rows
METADATA = b"scripted"


def memory_of_rank(staging_bytes: int = 8 << 20) -> RankMemory:
    pool = torch.zeros((RANK.num_blocks, RANK.layout.block_bytes), dtype=torch.uint8)
    return RankMemory(pool, torch.zeros(staging_bytes, dtype=torch.uint8))


def rank_peer(
    peer: WorkerId = PEER,
    transport: str = "a",
    metadata: bytes = METADATA,
    geometry: RankGeometry = RANK,
    *,
    is_expected: bool = False,
) -> RankPeer:
    return RankPeer(peer, transport, metadata, geometry, is_expected)


@dataclass
class ScriptedTransfer:
    """In flight until its outcome is set."""

    runs: int
    outcome: TransferState | Exception = TransferState.IN_FLIGHT
    num_polls: int = 0
    polled: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def poll(self) -> TransferState:
        self.num_polls += 1
        self.polled.release()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def wait_polls(self, num_polls: int) -> None:
        for _ in range(num_polls):
            assert self.polled.acquire(timeout=TIMEOUT_S)


class ScriptedTransport:
    """Notes what it is asked; `first_outcomes` are those of the next transfers."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.transfers: list[ScriptedTransfer] = []
        self.peers: set[WorkerId] = set()
        self.progressed = threading.Semaphore(0)
        self.first_outcomes: list[TransferState | Exception] = []
        self.threads: set[str] = set()

    def metadata(self) -> bytes:
        return METADATA

    def add_peer(self, peer: WorkerId, metadata: bytes, local: RunTable, remote: RunTable) -> str:
        assert (local.num_rows, local.run_bytes) == (remote.num_rows, remote.run_bytes)
        self._note(f"add {peer}")
        if metadata != METADATA:
            raise HandoffError(f"metadata of {peer} is {metadata!r}")
        self.peers.add(peer)
        return "thin air"

    def expect_peer(self, peer: WorkerId, metadata: bytes) -> None:
        self._note(f"expect {peer} {metadata.decode()}")

    def remove_peer(self, peer: WorkerId) -> None:
        self._note(f"remove {peer}")
        self.peers.discard(peer)

    def post(self, peer: WorkerId, direction: Direction, local: RunIds, remote: RunIds) -> ScriptedTransfer:
        self._note(f"{direction.value} {peer} {local.tolist()} {remote.tolist()}")
        if peer not in self.peers:
            raise HandoffError(f"{peer} is not connected")
        outcome = self.first_outcomes.pop(0) if self.first_outcomes else TransferState.IN_FLIGHT
        transfer = ScriptedTransfer(len(local), outcome)
        self.transfers.append(transfer)
        return transfer

    def progress(self) -> None:
        self._note("progress")
        self.progressed.release()

    def close(self) -> None:
        self._note("close")

    @property
    def posted(self) -> list[str]:
        return [call for call in self.calls if call.startswith(("write", "read"))]

    def _note(self, call: str) -> None:
        self.calls.append(call)
        self.threads.add(threading.current_thread().name)
