"""One safetensors file: its header first, then single tensors, or parts of them, read straight to where they belong.

    0        8             8 + n                                              file size
    [ n: u64 )[ JSON header )[ data; tensor i at data_offsets[i], half-open       )

Format: https://huggingface.co/docs/safetensors. The library's own reader maps the whole file, which counts against
a worker's memory a second time while it loads; this one holds at most `MAX_STAGED_BYTES` besides the destination.
"""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from core.errors import CheckpointError
from engine.parallel.axis_part import AxisPart
from engine.weights import TensorSlot

HEADER_LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000  # the format's own limit
MAX_STAGED_BYTES = 4 * 2**20  # of what is cast or packed on its way: large for a read, nothing beside a model
PIECE_ROWS = 64  # pieces are whole multiples of it, which every order of rows in tiles divides
STORED_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where one tensor lies.

    Attributes:
        name: its name in the checkpoint.
        path: the file.
        dtype: the format's word for its type; only `STORED_DTYPES` can be read.
        shape: its shape.
        offset: first byte in the file.
        size_bytes: bytes in the file.
    """

    name: str
    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int

    @property
    def element_bytes(self) -> int:
        """Bytes of one element; only for types that can be read."""
        return STORED_DTYPES[self.dtype].itemsize


def read_header(path: Path) -> bytes:
    """The raw JSON header.

    Raises:
        CheckpointError: the file is missing, unreadable or shorter than it says.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(HEADER_LENGTH_BYTES), "little")
            header = file.read(min(length, MAX_HEADER_BYTES))
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist; download the missing file") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}; check its permissions") from error
    if not header or len(header) < length:
        raise CheckpointError(f"{path} has no complete safetensors header; download the file again")
    return header


def list_tensors(path: Path) -> list[StoredTensor]:
    """All tensors of a file, in the order they lie in it. Reads the header only.

    Raises:
        CheckpointError: the file is not a complete safetensors file.
    """
    header = read_header(path)
    try:
        entries: dict[str, dict[str, Any]] = json.loads(header)
        entries.pop("__metadata__", None)
        data_start = HEADER_LENGTH_BYTES + len(header)
        tensors = [_stored_tensor(path, name, entry, data_start) for name, entry in entries.items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} has a damaged safetensors header ({error}); download the file again"
        ) from error
    tensors.sort(key=lambda tensor: tensor.offset)
    _check_complete(path, data_start, tensors)
    return tensors


def _stored_tensor(path: Path, name: str, entry: dict[str, Any], data_start: int) -> StoredTensor:
    shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
    return StoredTensor(name, path, str(entry["dtype"]), shape, data_start + begin, end - begin)


def _check_complete(path: Path, data_start: int, tensors: list[StoredTensor]) -> None:
    size_bytes = path.stat().st_size
    end = max((tensor.offset + tensor.size_bytes for tensor in tensors), default=data_start)
    if size_bytes != end:
        cut = next((tensor.name for tensor in tensors if tensor.offset + tensor.size_bytes > size_bytes), None)
        where = f", {cut} is cut off" if cut else ""
        raise CheckpointError(
            f"{path} has {size_bytes} bytes where its header says {end}{where}; download the file again"
        )


@dataclass(frozen=True, slots=True)
class FileVersion:
    """What changes when a file is written again or replaced."""

    inode: int
    size_bytes: int
    modified_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """The version that a file's status tells."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)


class TensorReader:
    """Reads tensors of one open file into given memory; a context manager that closes the file.

    Args:
        path: a file that `list_tensors` accepted.
        version: what it was then; None to read whatever it is.

    Raises:
        CheckpointError: on construction, if it is another file now.

    Attributes:
        num_bytes_read: bytes read from the file so far.
    """

    def __init__(self, path: Path, version: FileVersion | None = None) -> None:
        self._file = path.open("rb", buffering=0)
        if version is not None and version != FileVersion.of(os.fstat(self._file.fileno())):
            self._file.close()
            raise CheckpointError(
                f"{path} was changed since the model was loaded; start again to serve what it is now"
            )
        self._staging = torch.empty(0, dtype=torch.uint8)
        self.num_bytes_read = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read_into(self, stored: StoredTensor, slot: TensorSlot) -> None:
        """Fills `slot.destination` with its part of the tensor, casting to its type; reads nothing else.

        Args:
            stored: of the shape that the slot asks for.
            slot: what to read, and where to.

        Raises:
            CheckpointError: the file ended early, so it was changed since it was listed.
        """
        destination = slot.destination
        is_direct = destination.dtype == STORED_DTYPES[stored.dtype] and destination.is_contiguous()
        if is_direct and destination.device.type == "cpu":
            self._fill(stored, slot, 0, destination)
            return
        for first_row, rows in self.pieces(stored, slot):
            destination[first_row : first_row + len(rows)].copy_(rows)

    def pieces(self, stored: StoredTensor, slot: TensorSlot) -> Iterator[tuple[int, Tensor]]:
        """The rows that a slot wants in the type they are stored in, some at a time, each piece with its first row.

        Rows count from the first that the slot wants. A piece is at most `MAX_STAGED_BYTES`, but at least
        `PIECE_ROWS` rows; it is overwritten by the next.

        Raises:
            CheckpointError: as `read_into`.
        """
        dtype, (num_rows, *rest) = STORED_DTYPES[stored.dtype], slot.destination.shape
        row_bytes = max(1, math.prod(rest) * stored.element_bytes)
        most_rows = max(1, MAX_STAGED_BYTES // row_bytes // PIECE_ROWS) * PIECE_ROWS
        for first_row in range(0, num_rows, most_rows):
            shape = (min(most_rows, num_rows - first_row), *rest)
            rows = self._stage(shape[0] * row_bytes).view(dtype).view(shape)
            self._fill(stored, slot, first_row, rows)
            yield first_row, rows

    def _stage(self, size_bytes: int) -> Tensor:
        """Memory for what is on its way; the same for all of it, for freed memory need not go back to the system."""
        if len(self._staging) < size_bytes:
            self._staging = torch.empty(size_bytes, dtype=torch.uint8)
        return self._staging[:size_bytes]

    def _fill(self, stored: StoredTensor, slot: TensorSlot, first_row: int, target: Tensor) -> None:
        """Fills contiguous memory with what the slot wants, from its `first_row` on."""
        view = target.view(-1).view(torch.uint8).numpy().data
        rows = AxisPart(first_row + (slot.rows.first if slot.rows else 0), len(target), stored.shape[0])
        begin = 0
        for offset, size_bytes in byte_ranges(stored, rows, slot.columns):
            if not self._read(view[begin : begin + size_bytes], offset):
                raise CheckpointError(
                    f"{stored.path} ended inside {stored.name}; do not change it while it is loaded"
                )
            begin += size_bytes

    def _read(self, view: memoryview, offset: int) -> bool:
        """Reads from `offset` until `view` is full; False if the file ends before. One call reads up to 2 GiB."""
        while view:
            num_read = os.preadv(self._file.fileno(), [view], offset)
            if num_read == 0:
                return False
            self.num_bytes_read += num_read
            view, offset = view[num_read:], offset + num_read
        return True


def byte_ranges(stored: StoredTensor, rows: AxisPart, columns: AxisPart | None) -> Iterator[tuple[int, int]]:
    """Offset and length in the file of a part of a tensor, row by row; neighbours are joined.

    all columns      one range of whole rows
    some columns     one range in each row

               columns.first
    row i      [ ......... [ wanted )......... )[ row i + 1 ...
    """
    row_bytes = stored.size_bytes // rows.total
    if columns is None or columns.is_whole:
        yield stored.offset + rows.first * row_bytes, rows.size * row_bytes
        return
    skipped, wanted = columns.first * stored.element_bytes, columns.size * stored.element_bytes
    for row in range(rows.first, rows.first + rows.size):
        yield stored.offset + row * row_bytes + skipped, wanted
