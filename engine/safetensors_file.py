"""One safetensors file: its header first, then single tensors, or parts of them, read straight to where they belong.

    0        8             8 + n                                              file size
    [ n: u64 )[ JSON header )[ data; tensor i at data_offsets[i], half-open       )

Format: https://huggingface.co/docs/safetensors. The library's own reader maps the whole file, which counts against
a worker's memory a second time while it loads; this one holds at most one tensor besides the destination.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from core.errors import CheckpointError
from engine.parallel.axis_part import AxisPart
from engine.weights import TensorSlot

HEADER_LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000  # the format's own limit
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


class TensorReader:
    """Reads tensors of one open file into given memory; a context manager that closes the file.

    Args:
        path: a file that `list_tensors` accepted.

    Attributes:
        num_bytes_read: bytes read from the file so far.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
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
        dtype, destination = STORED_DTYPES[stored.dtype], slot.destination
        is_direct = destination.dtype == dtype and destination.is_contiguous() and destination.device.type == "cpu"
        target = destination if is_direct else torch.empty(destination.shape, dtype=dtype)
        view = target.view(-1).view(torch.uint8).numpy().data
        begin = 0
        for offset, size_bytes in byte_ranges(stored, slot):
            if not self._fill(view[begin : begin + size_bytes], offset):
                raise CheckpointError(
                    f"{stored.path} ended inside {stored.name}; do not change it while it is loaded"
                )
            begin += size_bytes
        if target is not destination:
            destination.copy_(target)

    def _fill(self, view: memoryview, offset: int) -> bool:
        """Reads from `offset` until `view` is full; False if the file ends before. One call reads up to 2 GiB."""
        while view:
            num_read = os.preadv(self._file.fileno(), [view], offset)
            if num_read == 0:
                return False
            self.num_bytes_read += num_read
            view, offset = view[num_read:], offset + num_read
        return True


def byte_ranges(stored: StoredTensor, slot: TensorSlot) -> Iterator[tuple[int, int]]:
    """Offset and length in the file of what a slot wants, in the order of its memory; neighbours are joined.

    all columns      one range of whole rows
    some columns     one range in each row

               columns.first
    row i      [ ......... [ wanted )......... )[ row i + 1 ...
    """
    rows, columns = slot.rows or AxisPart.whole(stored.shape[0]), slot.columns
    row_bytes = stored.size_bytes // rows.total
    if columns is None or columns.is_whole:
        yield stored.offset + rows.first * row_bytes, rows.size * row_bytes
        return
    skipped, wanted = columns.first * stored.element_bytes, columns.size * stored.element_bytes
    for row in range(rows.first, rows.first + rows.size):
        yield stored.offset + row * row_bytes + skipped, wanted
