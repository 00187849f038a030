"""What a source asks a target to read, where KV is pulled, and what it is answered."""

from dataclasses import dataclass

from core.ids import WorkerEndpoint, WorkerId
from kvtransfer.move import MoveOutcome


@dataclass(frozen=True, slots=True)
class ReadOrder:
    """Blocks that a target is to read.

    Attributes:
        read_id: names the read; unique per source.
        handoff_id: whose blocks they are.
        source: who has the KV.
        target: the incarnation that is to read.
        source_ids: blocks of the source, as its book counts them.
        target_ids: blocks of the target.
        skip_tokens: as in `Move`.
    """

    read_id: str
    handoff_id: str
    source: WorkerEndpoint
    target: WorkerId
    source_ids: tuple[int, ...]
    target_ids: tuple[int, ...]
    skip_tokens: int


@dataclass(frozen=True, slots=True)
class ReadAnswer:
    """How a read has ended.

    Attributes:
        outcome: of the move; without digests.
        transport: what the reader has used; empty when it did not come to that.
        path: what carried its bytes.
        was_retried: whether it was tried a second time, over another transport.
    """

    outcome: MoveOutcome
    transport: str = ""
    path: str = ""
    was_retried: bool = False
