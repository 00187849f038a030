"""Whether runs lie inside a rank's memory, and copying them: for transports that move bytes themselves."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from torch import Tensor

from core.errors import HandoffError
from kvtransfer.runs import RunIds, RunTable

Piece = tuple[int, int]
"""`[begin, end)` in bytes from the beginning of a region."""


def check_route(local: RunTable, remote: RunTable) -> None:
    """Runs of two tables correspond.

    Raises:
        HandoffError: they differ in rows or bytes; both are named.
    """
    mine, theirs = ((table.num_rows, table.run_bytes) for table in (local, remote))
    if mine != theirs:
        raise HandoffError(
            f"a block has {theirs[0]} runs of {theirs[1]} bytes there, {mine[0]} of {mine[1]} here; start both with "
            "the same version"
        )


def check_table(table: RunTable, region_bytes: int) -> None:
    """All runs of a table lie inside a region of so many bytes.

    Raises:
        HandoffError: they do not.
    """
    counts = (table.num_blocks, table.num_rows, table.run_bytes)
    strides = (table.block_stride_bytes, table.row_stride_bytes, table.first_byte)
    last_run = (table.num_blocks - 1) * table.block_stride_bytes + (table.num_rows - 1) * table.row_stride_bytes
    end = table.first_byte + last_run + table.run_bytes
    if min(counts) < 1 or min(strides) < 0 or end > region_bytes:
        raise HandoffError(f"{table} is not inside {region_bytes} bytes; start both workers with the same version")


def check_runs(local: RunIds, here: RunTable, remote: RunIds, there: RunTable) -> None:
    """Runs of two tables can be copied one to one.

    Raises:
        HandoffError: one of them is not in its table, or there are none.
    """
    assert len(local) == len(remote), f"{len(local)} runs here and {len(remote)} there"
    check_ids(local, here)
    check_ids(remote, there)


def check_ids(run_ids: RunIds, table: RunTable) -> None:
    """All ids are runs of a table, and there is at least one.

    Raises:
        HandoffError: one is not.
    """
    if len(run_ids) == 0 or run_ids.min() < 0 or run_ids.max() >= table.num_runs:
        first, last = (run_ids.min(), run_ids.max()) if len(run_ids) else ("none", "none")
        raise HandoffError(
            f"runs {first} to {last} were asked for, there are 0 to {table.num_runs - 1}; the request is placed again"
        )


def offsets(table: RunTable, run_ids: RunIds) -> npt.NDArray[np.int64]:
    """`[num_runs]`: where runs begin, in bytes from the beginning of their region."""
    ids = run_ids.astype(np.int64)
    blocks, rows = ids // table.num_rows, ids % table.num_rows
    begins: npt.NDArray[np.int64] = blocks * table.block_stride_bytes + rows * table.row_stride_bytes
    return begins + table.first_byte


def chunks(table: RunTable, run_ids: RunIds, chunk_bytes: int) -> Iterator[list[Piece]]:
    """Cuts what some runs hold into chunks of `chunk_bytes`, the last one shorter; what adjoins is one piece.

    runs      [ 7 )[ 8 )[ 9 )      [ 2 )[ 3 )
    chunks    [ piece )[ piece )...[ pc)[ pc )      a chunk is as long at both ends, whatever its pieces are
    """
    chunk: list[Piece] = []
    room = chunk_bytes
    for span_begin, span_end in _spans(table, run_ids):
        begin = span_begin
        while begin < span_end:
            end = min(span_end, begin + room)
            chunk.append((begin, end))
            room -= end - begin
            begin = end
            if room == 0:
                yield chunk
                chunk, room = [], chunk_bytes
    if chunk:
        yield chunk


def gather(region: Tensor, chunk: list[Piece], buffer: Tensor) -> Tensor:
    """A chunk's bytes in one piece: in `buffer`, or where they are when they adjoin. `region` is `[bytes]`."""
    if len(chunk) == 1:
        begin, end = chunk[0]
        return region[begin:end]
    filled = 0
    for begin, end in chunk:
        buffer[filled : filled + end - begin].copy_(region[begin:end])
        filled += end - begin
    return buffer[:filled]


def scatter(source: Tensor, region: Tensor, chunk: list[Piece]) -> None:
    """Puts a chunk's bytes, which lie in one piece in `source`, where they belong. `region` is `[bytes]`."""
    taken = 0
    for begin, end in chunk:
        region[begin:end].copy_(source[taken : taken + end - begin])
        taken += end - begin


def _spans(table: RunTable, run_ids: RunIds) -> list[Piece]:
    """The runs in order, adjoining ones as one."""
    begins = offsets(table, run_ids)
    ends = begins + table.run_bytes
    is_first = np.append(True, begins[1:] != ends[:-1])
    is_last = np.append(is_first[1:], True)
    return list(zip(begins[is_first].tolist(), ends[is_last].tolist(), strict=True))
