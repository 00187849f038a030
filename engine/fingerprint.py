"""A short name for what a worker serves, so that two workers can tell cheaply that their KV is interchangeable."""

from pathlib import Path

import xxhash

from engine.checkpoint import weight_files
from engine.safetensors_file import read_header

# Headers alone cannot tell a model from its fine-tune: shapes and sizes are the same. So a little of the weights
# is read as well; fine-tuning moves practically every weight, so few places suffice.
NUM_SAMPLES = 16
SAMPLE_BYTES = 4096


def fingerprint(model_dir: Path, dtype: str) -> str:
    """32 hexadecimal digits over config.json, every file's header and size, samples of its bytes, and `dtype`.

    Reads a few hundred kilobytes; takes milliseconds. Equal folders give equal fingerprints on every machine.
    It guards against mistakes, not against forgery.

    Args:
        model_dir: a checkpoint folder that loads.
        dtype: the type it is served in; KV of another type is not interchangeable.

    Raises:
        CheckpointError: a file is missing or unreadable.
    """
    digest = xxhash.xxh3_128()
    for part in (dtype.encode(), (model_dir / "config.json").read_bytes()):
        _update(digest, part)
    for path in weight_files(model_dir):
        _update(digest, path.name.encode())
        _update(digest, path.stat().st_size.to_bytes(8, "little"))
        _update(digest, read_header(path))
        _update(digest, _samples(path))
    return digest.hexdigest()


def _update(digest: xxhash.xxh3_128, part: bytes) -> None:
    """Each part goes in with its length, so that no two sequences of parts read the same."""
    digest.update(len(part).to_bytes(8, "little"))
    digest.update(part)


def _samples(path: Path) -> bytes:
    """`NUM_SAMPLES` pieces at even distances, the last one at the end."""
    last = max(0, path.stat().st_size - SAMPLE_BYTES)
    pieces = []
    with path.open("rb") as file:
        for i in range(NUM_SAMPLES):
            file.seek(last * (i + 1) // NUM_SAMPLES)
            pieces.append(file.read(SAMPLE_BYTES))
    return b"".join(pieces)
