"""Where a rank puts blocks of a peer's size together before they are sent.

A piece of a move takes adjacent slots as large as the peer's blocks and gives them back when it has ended. What finds
no room waits for that, so the region bounds memory and not the size of a move. Pieces of one peer have no more than a
quarter together, unless one alone is larger: those of a peer that hangs stay where they are.
"""

from bisect import insort
from dataclasses import dataclass

import torch

from core.ids import WorkerId
from kvtransfer.geometry import RankGeometry
from kvtransfer.memory import RankMemory
from kvtransfer.packing import PoolReader, as_blocks, part_of
from kvtransfer.pieces import Piece
from kvtransfer.rank_mover import RankMove

PEER_SHARE = 1 / 4  # of the region: as much as the largest piece, so that peers that hang leave room to the others


@dataclass(frozen=True, slots=True, order=True)
class Slots:
    """Adjacent slots of one size.

    Attributes:
        first_byte: in the staging region, a multiple of `slot_bytes`.
        num_slots: at least one.
        slot_bytes: of each.
    """

    first_byte: int
    num_slots: int
    slot_bytes: int

    @property
    def end_byte(self) -> int:
        """One past the last byte."""
        return self.first_byte + self.size_bytes

    @property
    def size_bytes(self) -> int:
        """Of all slots."""
        return self.num_slots * self.slot_bytes

    @property
    def ids(self) -> range:
        """Slots as a region that is divided into slots of this size counts them."""
        first = self.first_byte // self.slot_bytes
        return range(first, first + self.num_slots)


class StagingBook:
    """Who has which bytes of the region; first fit.

    Args:
        size_bytes: of the region.
    """

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._taken: list[Slots] = []  # by first byte

    def try_take(self, num_slots: int, slot_bytes: int) -> Slots | None:
        """Adjacent slots, or None while there is no room; what the region can never hold is our bug."""
        assert num_slots * slot_bytes <= self._size_bytes, f"{num_slots} slots of {slot_bytes} B never fit"
        for first_byte in (0, *(slots.end_byte for slots in self._taken)):
            slots = Slots(-(-first_byte // slot_bytes) * slot_bytes, num_slots, slot_bytes)
            if slots.end_byte <= self._size_bytes and not any(_overlap(slots, other) for other in self._taken):
                insort(self._taken, slots)
                return slots
        return None

    def give_back(self, slots: Slots) -> None:
        """Frees slots that were taken."""
        self._taken.remove(slots)


class Staging:
    """A rank's staging region.

    Args:
        memory: of the rank.
        geometry: of the rank.
        reader: of its pool.
    """

    def __init__(self, memory: RankMemory, geometry: RankGeometry, reader: PoolReader) -> None:
        self._region = memory.staging
        self._layout = geometry.layout
        self._reader = reader
        self._book = StagingBook(memory.staging.numel())
        self._max_peer_bytes = int(memory.staging.numel() * PEER_SHARE)
        self._takers: dict[Slots, WorkerId] = {}  # of what is taken

    def try_pack(self, move: RankMove, piece: Piece, slot: RankGeometry) -> Slots | None:
        """Puts a piece's rows of a move's target blocks together, or None while there is no room for the peer.

        Args:
            move: a WRITE.
            piece: which blocks and rows.
            slot: the peer's blocks, of the common heads; `num_blocks` of them fill the region.
        """
        slots = self._try_take(move.peer, piece.num_blocks, slot.layout.block_bytes)
        if slots is None:
            return None
        blocks = as_blocks(self._region, slot)
        layers = piece.layers(slot.layout.num_layers)
        num_tokens, heads = slot.layout.block_tokens, (slot.first_head, slot.layout.kv_heads)
        for index, slot_id in enumerate(slots.ids, start=piece.first_block):
            first_token = move.skip_tokens + index * num_tokens
            part = part_of(move.local_ids, self._layout.block_tokens, first_token, num_tokens, heads)
            self._reader.pack(part, layers, blocks[slot_id])
        if self._region.is_cuda:  # the transport does not wait for torch's stream
            torch.cuda.current_stream(self._region.device).synchronize()
        return slots

    def give_back(self, slots: Slots) -> None:
        """Frees what `try_pack` took; nothing reads it any more."""
        self._book.give_back(slots)
        del self._takers[slots]

    def _try_take(self, peer: WorkerId, num_slots: int, slot_bytes: int) -> Slots | None:
        """Slots for a peer that has none, or would not have more than its share with these."""
        num_taken = sum(slots.size_bytes for slots, taker in self._takers.items() if taker == peer)
        if num_taken and num_taken + num_slots * slot_bytes > self._max_peer_bytes:
            return None
        slots = self._book.try_take(num_slots, slot_bytes)
        if slots is not None:
            self._takers[slots] = peer
        return slots


def _overlap(one: Slots, other: Slots) -> bool:
    return one.first_byte < other.end_byte and other.first_byte < one.end_byte
