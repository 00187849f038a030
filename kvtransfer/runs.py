"""Which bytes a transfer moves, as both ends number them: equal runs in a regular pattern. Arithmetic only."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

RunIds = npt.NDArray[np.int32]
"""`[num_runs]`, each below `RunTable.num_runs`."""


class Region(Enum):
    """A piece of a rank's memory that is registered with the transfer plane as one."""

    POOL = 0
    """All KV blocks of the rank."""
    STAGING = 1
    """Where blocks are put together for a peer whose blocks have another shape."""


@dataclass(frozen=True, slots=True)
class RunTable:
    """Equal runs of bytes in one region, numbered through: `num_rows` in each of `num_blocks` equal blocks.

        block 0                          block 1
        | first [row 0)..[row 1)..       | first [row 0)..[row 1)..        [ ) = run_bytes
                |<-row_stride->|
        |<-------- block_stride -------->|
        run id      0        1                   2        3                num_rows = 2

    Both ends of a route have tables with the same `num_rows` and `run_bytes`; runs of equal rows correspond.

    Attributes:
        region: where the runs lie.
        num_blocks: blocks in the region.
        block_stride_bytes: from one block to the next.
        num_rows: runs in each block.
        row_stride_bytes: from one run of a block to the next.
        first_byte: of a block's first run, from the block's beginning.
        run_bytes: of each run.
    """

    region: Region
    num_blocks: int
    block_stride_bytes: int
    num_rows: int
    row_stride_bytes: int
    first_byte: int
    run_bytes: int

    @property
    def num_runs(self) -> int:
        """Runs in all blocks."""
        return self.num_blocks * self.num_rows

    def starts(self) -> npt.NDArray[np.uint64]:
        """`[num_runs]`: where each run begins, in bytes from the beginning of the region."""
        blocks = np.arange(self.num_blocks, dtype=np.uint64)[:, None] * np.uint64(self.block_stride_bytes)
        rows = np.arange(self.num_rows, dtype=np.uint64)[None, :] * np.uint64(self.row_stride_bytes)
        return (blocks + rows + np.uint64(self.first_byte)).reshape(-1)

    def runs_of(self, block_ids: Sequence[int], first_row: int, end_row: int) -> RunIds:
        """The runs of rows `[first_row, end_row)` of some blocks, block by block."""
        blocks = np.asarray(block_ids, dtype=np.int32)[:, None] * np.int32(self.num_rows)
        rows = np.arange(first_row, end_row, dtype=np.int32)[None, :]
        return (blocks + rows).reshape(-1)
