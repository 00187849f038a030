"""One safetensors file: its header first, then single tensors read straight to where they belong.

    0        8             8 + n                                              file size
    [ n: u64 )[ JSON header )[ data; tensor i at data_offsets[i], half-open       )

Format: https://huggingface.co/docs/safetensors. The library's own reader maps the whole file, which counts against
a worker's memory a second time while it loads; this one holds at most `MAX_STAGED_BYTES` besides the destination.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from core.errors import CheckpointError

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
    """

    def __init__(self, path: Path) -> None:
        self._file: BufferedReader = path.open("rb")
        self._staging = torch.empty(0, dtype=torch.uint8)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read_into(self, stored: StoredTensor, destination: Tensor) -> None:
        """Fills `destination`, which has the stored shape, casting to its type.

        Raises:
            CheckpointError: the file ended early, so it was changed since it was listed.
        """
        is_direct = destination.dtype == STORED_DTYPES[stored.dtype] and destination.is_contiguous()
        if is_direct and destination.device.type == "cpu":
            self._file.seek(stored.offset)
            self._fill(stored, destination)
            return
        for first_row, rows in self.pieces(stored):
            destination[first_row : first_row + len(rows)].copy_(rows)

    def pieces(self, stored: StoredTensor) -> Iterator[tuple[int, Tensor]]:
        """The tensor's rows in the type they are stored in, some at a time, each piece with its first row.

        A piece is at most `MAX_STAGED_BYTES`, but at least `PIECE_ROWS` rows; it is overwritten by the next.

        Raises:
            CheckpointError: as `read_into`.
        """
        dtype, (num_rows, *rest) = STORED_DTYPES[stored.dtype], stored.shape
        row_bytes = max(1, stored.size_bytes // max(1, num_rows))
        most_rows = max(1, MAX_STAGED_BYTES // row_bytes // PIECE_ROWS) * PIECE_ROWS
        self._file.seek(stored.offset)
        for first_row in range(0, num_rows, most_rows):
            shape = (min(most_rows, num_rows - first_row), *rest)
            rows = self._stage(shape[0] * row_bytes).view(dtype).view(shape)
            self._fill(stored, rows)
            yield first_row, rows

    def _stage(self, size_bytes: int) -> Tensor:
        """Memory for what is on its way; the same for all of it, for freed memory need not go back to the system."""
        if len(self._staging) < size_bytes:
            self._staging = torch.empty(size_bytes, dtype=torch.uint8)
        return self._staging[:size_bytes]

    def _fill(self, stored: StoredTensor, target: Tensor) -> None:
        """Fills contiguous memory with what comes next in the file."""
        num_read = self._file.readinto(target.view(-1).view(torch.uint8).numpy().data)
        if num_read != target.nbytes:
            raise CheckpointError(f"{stored.path} ended inside {stored.name}; do not change it while it is loaded")
