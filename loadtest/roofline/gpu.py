"""What a GPU can do at most, from its maker's figures in `gpus.toml`. What is reached of it is in `assumptions`."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from core.errors import ConfigError

TERA, GIGA, MIB = 1e12, 1e9, 2**20
GPUS_FILE = Path(__file__).parent / "gpus.toml"


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU and what connects it.

    Attributes:
        name: as people write it.
        gpus_per_node: that one NVLink domain has.
        flops_per_s: dense, of matrix products, by the bits of both operands.
        memory_bytes_per_s: of its own memory.
        memory_bytes: that a process may use of it.
        nvlink_bytes_per_s: to GPUs of its node, in one direction.
        nic_bytes_per_s: to other nodes, in one direction: handoffs, for the ranks of a worker are on one node.
    """

    name: str
    gpus_per_node: int
    flops_per_s: Mapping[int, float]
    memory_bytes_per_s: float
    memory_bytes: int
    nvlink_bytes_per_s: float
    nic_bytes_per_s: float

    def matrix_flops_per_s(self, operand_bits: int) -> float:
        """Of products whose wider operand has so many bits: of the narrowest format that holds them.

        Raises:
            ConfigError: the file has the speed of narrower ones only.
        """
        wide_enough = [bits for bits in self.flops_per_s if bits >= operand_bits]
        if not wide_enough:
            raise ConfigError(
                f"how fast {self.name} multiplies {operand_bits}-bit operands is not known; plan a model in bfloat16"
            )
        return self.flops_per_s[min(wide_enough)]


@cache
def known_gpus() -> dict[str, Gpu]:
    """All GPUs of the file, by name."""
    tables = tomllib.loads(GPUS_FILE.read_text(encoding="utf-8"))
    return {name: _gpu(name, values) for name, values in tables.items()}


def gpu_by_name(name: str) -> Gpu:
    """A GPU by its name, in any case.

    Raises:
        ConfigError: it is not in the file.
    """
    by_lower_name = {known.lower(): gpu for known, gpu in known_gpus().items()}
    if name.lower() not in by_lower_name:
        raise ConfigError(f"--gpu is {name!r}, whose speed is not known; take one of {', '.join(known_gpus())}")
    return by_lower_name[name.lower()]


def _gpu(name: str, values: dict[str, Any]) -> Gpu:
    return Gpu(
        name=name,
        gpus_per_node=values["gpus_per_node"],
        flops_per_s={int(bits): tflops * TERA for bits, tflops in values["tensor_tflops"].items()},
        memory_bytes_per_s=values["memory_tb_per_s"] * TERA,
        memory_bytes=values["memory_mib"] * MIB,
        nvlink_bytes_per_s=values["nvlink_gb_per_s"] * GIGA,
        nic_bytes_per_s=values["nic_gb_per_s"] * GIGA,
    )
