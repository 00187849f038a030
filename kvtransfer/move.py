"""What is asked of the transfer plane, and what it answers: blocks to be copied between this worker and a peer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from core.errors import HandoffError
from core.ids import WorkerId


class Direction(Enum):
    """Which way bytes go, seen from whoever starts the transfer."""

    WRITE = "write"
    """From here to the peer."""
    READ = "read"
    """From the peer to here."""


@dataclass(frozen=True, slots=True)
class Move:
    """Blocks of one sequence to be copied, with ids as the books of the two workers count them.

        tokens of the sequence      .......... a ............. b
        who has the KV          [ source 0 )[ source 1 )[ source 2 )      the blocks that cover [a, b)
        who gets it                        [ t 0 )[ t 1 )[ t 2 )          the first begins at a
                                |<- skip ->|

    Where both workers' blocks are of one size, blocks correspond one to one and nothing is skipped.

    Attributes:
        peer: the other worker.
        direction: WRITE when this worker has the KV.
        local_ids: this worker's blocks, at least one.
        remote_ids: the peer's blocks, at least one.
        skip_tokens: from the beginning of the first source block to that of the first target block; less than a
            source block.
        final_after_step: number of this worker's engine step that is still to write the source blocks, see
            `engine.kv.progress`; they leave as its layers end. None when they are final. WRITE only.
        digest_every: have a digest taken of every so manyth target block, the first one first; 0 for none.
        handoff_id: whose blocks they are, for a peer that is asked to read; empty where none is.
    """

    peer: WorkerId
    direction: Direction
    local_ids: Sequence[int]
    remote_ids: Sequence[int]
    skip_tokens: int = 0
    final_after_step: int | None = None
    digest_every: int = 0
    handoff_id: str = ""


@dataclass(frozen=True, slots=True)
class Digest:
    """A checksum of what one rank of the target got of a block: of some heads, all layers, keys and values.

    Attributes:
        rank: of the target.
        block_id: as that rank counts its blocks.
        first_head: of the model's KV heads.
        num_heads: how many.
        value: 64 bits of XXH3 over the bytes as they lie in the target's block.
    """

    rank: int
    block_id: int
    first_head: int
    num_heads: int
    value: int


@dataclass(frozen=True, slots=True)
class MoveOutcome:
    """How a move ended; nothing of it is under way any more.

    Attributes:
        error: why it failed, or None; with an error the target's blocks hold anything.
        num_bytes: that were moved, over all ranks.
        num_descriptors: contiguous pieces they were moved in.
        busy_s: seconds in which bytes of it were under way; of the rank where that was longest.
        digests: as the move asked for; none with an error.
        transport: that it was ordered over; empty where that is not known, as for one that was not begun.
        direction: of the transfers, seen from whoever started them: READ where the peer was asked to read.
    """

    error: HandoffError | None
    num_bytes: int = 0
    num_descriptors: int = 0
    busy_s: float = 0.0
    digests: tuple[Digest, ...] = ()
    transport: str = ""
    direction: Direction = Direction.WRITE


OnMoved = Callable[[MoveOutcome], None]
"""Hears how a move ended. Called exactly once, from any thread; the blocks stay leased until then."""


class BlockMoves(Protocol):
    """Whoever carries moves out."""

    def move(self, move: Move, on_moved: OnMoved) -> None:
        """Queues a move; from any thread. Moves of one worker to one peer may end in any order."""
        ...
