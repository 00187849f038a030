"""A checkpoint folder: what tensors it has, whether they are those a model needs, and loading them.

Not the model: layers say which tensors they consist of (`engine.weights.TensorSlot`), this fills them.
"""

from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path

from core.errors import CheckpointError
from engine.json_fields import JsonFields, read_json_object
from engine.safetensors_file import STORED_DTYPES, FileVersion, StoredTensor, TensorReader, list_tensors
from engine.weights import TensorSlot

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
# Tensors of layers whose absence from the model changes nothing: buffers that old transformers versions saved.
IGNORED_LAYER_SUFFIX = ".rotary_emb.inv_freq"

Progress = Callable[[int, int], None]
"""Called with (bytes read, bytes to read), both of the files, after every tensor."""

Assignment = tuple[StoredTensor, TensorSlot]


class Checkpoint:
    """The tensors of a folder, listed from the files' headers; no weight is read on construction.

    Args:
        model_dir: holds `model.safetensors`, or shards and `model.safetensors.index.json`.

    Raises:
        CheckpointError: on construction, if a file is missing, truncated or unreadable.

    Attributes:
        tensors: where each tensor lies, by name.
    """

    def __init__(self, model_dir: Path) -> None:
        self.model_dir = model_dir
        self.tensors: dict[str, StoredTensor] = {}
        self._versions: dict[Path, FileVersion] = {}
        for path in weight_files(model_dir):
            self.tensors.update((tensor.name, tensor) for tensor in list_tensors(path))
            self._versions[path] = FileVersion.of(path.stat())
        self._check_index()

    def check(self, slots: Iterable[TensorSlot]) -> None:
        """Makes sure that `load` of slots like these, or of parts of them, will find every tensor in the right shape.

        `slots` are those of a whole model and may be on the `meta` device. Tensors of layers that nothing asks for
        are refused too: a model without them would be another model. Those outside `model.layers.`
        (next-token-prediction heads under `model.mtp*`) are ignored.

        Raises:
            CheckpointError: a tensor is missing, misshapen, of a type that is not served, or left over.
        """
        used = {stored.name for stored, _ in self._assign(slots)}
        for name in self.tensors.keys() - used:
            if name.startswith("model.layers.") and not name.endswith(IGNORED_LAYER_SUFFIX):
                raise CheckpointError(
                    f"{self.tensors[name].path}: tensor {name} has no place in the model that config.json describes; "
                    "check that both are of the same model"
                )

    def load(self, slots: Iterable[TensorSlot], progress: Progress | None = None) -> int:
        """Fills every slot, one tensor at a time in file order, so that little but the model is in memory.

        Returns:
            Bytes read: of what the slots ask for, and of nothing else.

        Raises:
            CheckpointError: as `check`, or a file was changed since it was listed.
        """
        assignments = sorted(self._assign(slots), key=lambda pair: (pair[0].path, pair[0].offset))
        total_bytes = sum(slot.destination.numel() * stored.element_bytes for stored, slot in assignments)
        num_bytes_read = 0
        for path, of_file in groupby(assignments, key=lambda pair: pair[0].path):
            with TensorReader(path, self._versions[path]) as reader:
                for stored, slot in of_file:
                    _fill(reader, stored, slot)
                    if progress is not None:
                        progress(num_bytes_read + reader.num_bytes_read, total_bytes)
                num_bytes_read += reader.num_bytes_read
        return num_bytes_read

    def _assign(self, slots: Iterable[TensorSlot]) -> list[Assignment]:
        return [(self._find(slot), slot) for slot in slots]

    def _find(self, slot: TensorSlot) -> StoredTensor:
        stored = next((self.tensors[name] for name in slot.names if name in self.tensors), None)
        if stored is None:
            raise CheckpointError(
                f"{self.model_dir} has no tensor {slot.names[0]}, which config.json calls for; "
                "check that the download is complete and both are of the same model"
            )
        if stored.shape != slot.stored_shape:
            raise CheckpointError(
                f"{stored.path}: tensor {stored.name} has shape {list(stored.shape)} where config.json calls for "
                f"{list(slot.stored_shape)}; check that both are of the same model"
            )
        if stored.dtype not in STORED_DTYPES:
            raise CheckpointError(
                f"{stored.path}: tensor {stored.name} has type {stored.dtype}; served types are "
                f"{', '.join(STORED_DTYPES)}, so use a checkpoint that is not quantized"
            )
        return stored

    def _check_index(self) -> None:
        """An index may promise a tensor that its shard does not hold."""
        path = self.model_dir / INDEX_FILE
        if not path.exists():
            return
        for name, file_name in _weight_map(path).items():
            if name not in self.tensors or self.tensors[name].path.name != file_name:
                raise CheckpointError(
                    f"{path} says that {file_name} holds {name}, but it does not; download both again"
                )


def _fill(reader: TensorReader, stored: StoredTensor, slot: TensorSlot) -> None:
    if slot.take is None:
        reader.read_into(stored, slot)
        return
    for first_row, rows in reader.pieces(stored, slot):
        slot.take(rows.to(slot.destination.dtype), first_row=first_row)


def weight_files(model_dir: Path) -> list[Path]:
    """The safetensors files of a folder, sorted: the shards of the index if there is one, else the single file.

    Raises:
        CheckpointError: there is neither, or the index cannot be read.
    """
    index = model_dir / INDEX_FILE
    if index.exists():
        return [model_dir / file_name for file_name in sorted(set(_weight_map(index).values()))]
    if (model_dir / SINGLE_FILE).exists():
        return [model_dir / SINGLE_FILE]
    raise CheckpointError(
        f"{model_dir} holds neither {SINGLE_FILE} nor {INDEX_FILE}; point to a folder with a safetensors checkpoint"
    )


def _weight_map(index: Path) -> dict[str, str]:
    """File names by tensor name. A name that leaves the folder is refused."""
    fields = JsonFields(index, read_json_object(index))
    weight_map = fields.child("weight_map").values
    if not weight_map:
        raise fields.error("weight_map", "an object of file names by tensor name")
    for name, file_name in weight_map.items():
        if not isinstance(file_name, str) or Path(file_name).name != file_name:
            raise CheckpointError(f"{index}: weight_map puts {name} in {file_name!r}; it must be a file name")
    return dict(weight_map)
