"""Cutting a move into pieces of a few megabytes, in the order in which its layers become final. Pure state."""

from dataclasses import dataclass

PIECE_BYTES = 4 * 1024 * 1024  # a post may block for the whole copy: 1 ms at 4 GB/s, then others have their turn
MIN_BAND_BYTES = 1024 * 1024  # layers are waited for until so much of them is final; less is not worth a post


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows `[first_row, end_row)` of blocks `[first_block, end_block)`, counted within the move.

    Attributes:
        first_block: of the target's blocks.
        end_block: one past the last.
        first_row: of each of them.
        end_row: one past the last.
        total_rows: of a whole block.
    """

    first_block: int
    end_block: int
    first_row: int
    end_row: int
    total_rows: int

    @property
    def num_blocks(self) -> int:
        """How many blocks."""
        return self.end_block - self.first_block

    @property
    def num_rows(self) -> int:
        """Rows of each block."""
        return self.end_row - self.first_row

    def layers(self, num_layers: int) -> slice:
        """The layers, of so many, that the rows are of or touch."""
        return slice(self.first_row * num_layers // self.total_rows, -(-self.end_row * num_layers // self.total_rows))


class PieceCutter:
    """Where a move is. Its rows are cut into bands, from the first row on, and a band into pieces, block by block.

        rows     0 ........ first_row ........ end_row ........ num_ready ........ num_rows
        blocks   [ done     )[ this band: next_block ... )[ final  )[ being computed )

    Args:
        num_blocks: of the move, at least one.
        num_rows: of a block.
        run_bytes: of a row of one block.
        max_blocks: of a piece.
    """

    def __init__(self, num_blocks: int, num_rows: int, run_bytes: int, max_blocks: int) -> None:
        self._num_blocks = num_blocks
        self._num_rows = num_rows
        self._run_bytes = run_bytes
        self._max_blocks = max_blocks
        self._first_row = self._end_row = 0
        self._next_block = num_blocks

    @property
    def is_done(self) -> bool:
        """Whether everything has been cut."""
        return self._next_block == self._num_blocks and self._end_row == self._num_rows

    def peek(self, num_ready_rows: int) -> Piece | None:
        """The next piece, of leading rows that are final; None while there are too few, or when all is done.

        The same is answered until `take`.
        """
        if self._next_block == self._num_blocks and not self._open_band(num_ready_rows):
            return None
        row_bytes = (self._end_row - self._first_row) * self._run_bytes
        num_blocks = min(self._max_blocks, max(1, PIECE_BYTES // row_bytes))
        end_block = min(self._num_blocks, self._next_block + num_blocks)
        return Piece(self._next_block, end_block, self._first_row, self._end_row, self._num_rows)

    def take(self, piece: Piece) -> None:
        """Says that what `peek` answered is under way."""
        assert piece.first_block == self._next_block, f"{piece} is not the next one"
        self._next_block = piece.end_block

    def _open_band(self, num_ready_rows: int) -> bool:
        num_new = num_ready_rows - self._end_row
        is_last = num_ready_rows == self._num_rows
        if num_new <= 0 or not (is_last or num_new * self._num_blocks * self._run_bytes >= MIN_BAND_BYTES):
            return False
        self._first_row = self._end_row
        self._end_row += min(num_new, max(1, PIECE_BYTES // self._run_bytes))
        self._next_block = 0
        return True
