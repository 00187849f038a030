"""Memory of the accelerators that ERNIE 4.5 is usually served on."""

from core.errors import ConfigError

MIB, GIB = 2**20, 2**30

# As `nvidia-smi` shows it: what a driver leaves of the nominal size.
DEVICE_BYTES = {
    "A10": 23_028 * MIB,
    "A30": 24_576 * MIB,
    "L20": 46_068 * MIB,
    "A100-80G": 81_920 * MIB,
    "A800-80G": 81_920 * MIB,
    "H100": 81_559 * MIB,
    "H800": 81_559 * MIB,
    "H20": 97_871 * MIB,
    "H200": 143_771 * MIB,
    "B200": 183_359 * MIB,
}


def device_bytes(name: str) -> int:
    """Memory of a device by its name.

    Raises:
        ConfigError: not one that is known.
    """
    by_lower_name = {known.lower(): size for known, size in DEVICE_BYTES.items()}
    if name.lower() not in by_lower_name:
        known = ", ".join(DEVICE_BYTES)
        raise ConfigError(f"--gpu is {name!r}; known are {known}; for another pass --device-memory-gb")
    return by_lower_name[name.lower()]
