"""What the initiator of a two-sided transfer tells the other end first. Fixed size, so that it can be received."""

import struct
from dataclasses import astuple, dataclass

import torch
from torch import Tensor

from core.errors import HandoffError
from kvtransfer.move import Direction
from kvtransfer.runs import Region, RunTable

HEADER = struct.Struct("!4sBBI6q")
MAGIC = b"BCT1"
HEADER_BYTES = HEADER.size
MAX_RUNS = 1 << 20  # far more than a few megabytes of KV have


@dataclass(frozen=True, slots=True)
class TransferHeader:
    """One transfer, as the other end sees it.

    Attributes:
        direction: as the initiator sees it.
        table: the other end's runs.
        num_runs: that are copied; their ids follow.
    """

    direction: Direction
    table: RunTable
    num_runs: int

    def pack(self) -> Tensor:
        """`[HEADER_BYTES]` uint8."""
        region, *numbers = astuple(self.table)
        packed = HEADER.pack(MAGIC, self.direction is Direction.READ, region.value, self.num_runs, *numbers)
        return torch.frombuffer(bytearray(packed), dtype=torch.uint8)

    @classmethod
    def unpack(cls, packed: Tensor) -> "TransferHeader":
        """Reads what `pack` made.

        Raises:
            HandoffError: it is anything else.
        """
        magic, is_read, region, num_runs, *numbers = HEADER.unpack(packed.numpy().tobytes())
        if magic != MAGIC or is_read > 1 or region > 1 or not 1 <= num_runs <= MAX_RUNS:
            raise HandoffError(f"a transfer begins with {packed.tolist()}; start both workers with the same version")
        return cls(Direction.READ if is_read else Direction.WRITE, RunTable(Region(region), *numbers), num_runs)
