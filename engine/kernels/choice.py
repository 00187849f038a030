"""Whether a model is computed with the native kernels or with torch alone."""

import logging

import torch

from core.errors import ConfigError
from engine.config import ModelConfig
from engine.kernels.build import KernelsUnavailableError
from engine.kernels.native import MAX_GROUP, TILE_COLUMNS, TILE_ROWS, NativeKernels, native_kernels
from engine.kv.layout import KvLayout
from engine.parallel.topology import ONE_RANK, ShardTopology

AUTO_KERNELS = "auto"
KERNELS = (AUTO_KERNELS, "native", "torch")
"""`native` refuses to start where they cannot be had; `auto` then takes torch."""

logger = logging.getLogger(__name__)


def choose_kernels(
    wanted: str, config: ModelConfig, layout: KvLayout, device: str, topology: ShardTopology = ONE_RANK
) -> NativeKernels | None:
    """The native kernels, or None for torch.

    Args:
        wanted: one of `KERNELS`.
        config: the model.
        layout: a rank's KV blocks.
        device: where it is computed.
        topology: which part of the model a rank holds.

    Raises:
        ConfigError: not one of `KERNELS`, or `native` where it is not to be had.
    """
    if wanted not in KERNELS:
        raise ConfigError(f"kernels is {wanted!r}; it must be one of {', '.join(KERNELS)}")
    if wanted == "torch":
        return None
    obstacle = _obstacle(config, layout, device, topology)
    if obstacle is None:
        try:
            return native_kernels(torch.get_num_threads())
        except KernelsUnavailableError as error:
            obstacle = str(error)
    if wanted == "native":
        raise ConfigError(f"kernels is 'native', but {obstacle}")
    level = logging.WARNING if layout.dtype == "bfloat16" and device == "cpu" else logging.INFO
    logger.log(level, "computing with torch instead of the native kernels: %s", obstacle)
    return None


def _obstacle(config: ModelConfig, layout: KvLayout, device: str, topology: ShardTopology) -> str | None:
    """What about a rank's part of a model the kernels cannot do, or None."""
    if device != "cpu" or layout.dtype != "bfloat16":
        return f"they compute bfloat16 on a CPU, not {layout.dtype} on {device}"
    multiples = {
        "hidden_size": (config.hidden_size, TILE_COLUMNS),
        "intermediate_size": (config.intermediate_size // topology.tensor_parallel_size, TILE_COLUMNS),
        "head_dim": (config.head_dim, TILE_COLUMNS),
        "block_tokens": (layout.block_tokens, TILE_ROWS),
    }
    if config.moe is not None:
        cut = topology.tensor_parallel_size if topology.expert_parallel_size == 1 else 1
        multiples["moe_intermediate_size"] = (config.moe.intermediate_size // cut, TILE_COLUMNS)
        shared = config.moe.intermediate_size * config.moe.num_shared_experts // topology.tensor_parallel_size
        multiples["width of shared experts"] = (shared, TILE_COLUMNS)
    on_each = " on each rank" if topology.world_size > 1 else ""
    for name, (value, divisor) in multiples.items():
        if value % divisor:
            return f"they need a {name} that is a multiple of {divisor}, not {value}{on_each}"
    group = config.num_heads // topology.tensor_parallel_size // layout.kv_heads
    return f"they take {MAX_GROUP} query heads per KV head, not {group}" if group > MAX_GROUP else None
