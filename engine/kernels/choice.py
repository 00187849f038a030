"""Whether a model is computed with the native kernels or with torch alone."""

import logging

import torch

from core.errors import ConfigError
from engine.config import ModelConfig
from engine.kernels.build import KernelsUnavailableError
from engine.kernels.native import MAX_GROUP, TILE_COLUMNS, TILE_ROWS, NativeKernels, native_kernels
from engine.kv.layout import KvLayout

AUTO_KERNELS = "auto"
KERNELS = (AUTO_KERNELS, "native", "torch")
"""`native` refuses to start where they cannot be had; `auto` then takes torch."""

logger = logging.getLogger(__name__)


def choose_kernels(wanted: str, config: ModelConfig, layout: KvLayout, device: str) -> NativeKernels | None:
    """The native kernels, or None for torch.

    Args:
        wanted: one of `KERNELS`.
        config: the model, as one rank holds it.
        layout: its KV blocks.
        device: where it is computed.

    Raises:
        ConfigError: not one of `KERNELS`, or `native` where it is not to be had.
    """
    if wanted not in KERNELS:
        raise ConfigError(f"kernels is {wanted!r}; it must be one of {', '.join(KERNELS)}")
    if wanted == "torch":
        return None
    obstacle = _obstacle(config, layout, device)
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


def _obstacle(config: ModelConfig, layout: KvLayout, device: str) -> str | None:
    """What about a model the kernels cannot do, or None."""
    if device != "cpu" or layout.dtype != "bfloat16":
        return f"they compute bfloat16 on a CPU, not {layout.dtype} on {device}"
    multiples = {
        "hidden_size": (config.hidden_size, TILE_COLUMNS),
        "intermediate_size": (config.intermediate_size, TILE_COLUMNS),
        "head_dim": (config.head_dim, TILE_COLUMNS),
        "block_tokens": (layout.block_tokens, TILE_ROWS),
    }
    if config.moe is not None:
        multiples["moe_intermediate_size"] = (config.moe.intermediate_size, TILE_COLUMNS)
    for name, (value, divisor) in multiples.items():
        if value % divisor:
            return f"they need a {name} that is a multiple of {divisor}, not {value}"
    group = config.num_heads // config.num_kv_heads
    return f"they take {MAX_GROUP} query heads per KV head, not {group}" if group > MAX_GROUP else None
