"""Memory of the accelerators that ERNIE 4.5 is usually served on."""

import math

from core.errors import ConfigError
from loadtest.roofline.gpu import MIB, known_gpus

GIB = 2**30

# As `nvidia-smi` shows it: what a driver leaves of the nominal size.
DEVICE_BYTES = {
    "A10": 23_028 * MIB,
    "A30": 24_576 * MIB,
    "L20": 46_068 * MIB,
    "A100-80G": 81_920 * MIB,
    "A800-80G": 81_920 * MIB,
    **{gpu.name: gpu.memory_bytes for gpu in known_gpus().values()},
}


def device_bytes(name: str, memory_gb: float | None = None) -> int:
    """Memory of a device by its name, or of any device as its owner says.

    Args:
        name: a key of `DEVICE_BYTES`, in any case.
        memory_gb: its memory in GiB; the name does not matter then.

    Raises:
        ConfigError: not a device that is known, or no memory.
    """
    if memory_gb is not None:
        if not 0 < memory_gb < math.inf:
            raise ConfigError(f"--device-memory-gb is {memory_gb}; it must be positive and finite")
        return int(memory_gb * GIB)
    by_lower_name = {known.lower(): size for known, size in DEVICE_BYTES.items()}
    if name.lower() not in by_lower_name:
        known = ", ".join(DEVICE_BYTES)
        raise ConfigError(f"--gpu is {name!r}; known are {known}; for another pass --device-memory-gb")
    return by_lower_name[name.lower()]
