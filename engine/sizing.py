"""How much KV a model needs and how much fits. Arithmetic only: nothing is allocated."""

from core.errors import CheckpointError, ConfigError
from engine.config import ModelConfig
from engine.kv.layout import DTYPE_BYTES, KvLayout
from engine.parallel.topology import ONE_RANK, ShardTopology

AUTO_DTYPE = "auto"


def kv_layout(config: ModelConfig, block_tokens: int, dtype: str, topology: ShardTopology = ONE_RANK) -> KvLayout:
    """The layout of one rank's KV block of a model served in `dtype`."""
    return KvLayout(
        num_layers=config.num_layers,
        kv_heads=topology.kv_heads(config),
        block_tokens=block_tokens,
        head_dim=config.head_dim,
        dtype=dtype,
    )


def blocks_in(layout: KvLayout, size_bytes: int) -> int:
    """How many blocks fit in `size_bytes` bytes; may be zero."""
    return max(0, size_bytes) // layout.block_bytes


def serving_dtype(dtype: str, config: ModelConfig) -> str:
    """The type of weights and KV: `dtype`, or the one the checkpoint was saved in when that is `auto`.

    Raises:
        CheckpointError: `auto`, and the checkpoint does not say.
        ConfigError: not a type there is.
    """
    if dtype == AUTO_DTYPE:
        if config.dtype is None:
            raise CheckpointError("config.json has no dtype, so `auto` has nothing to go by; set dtype to bfloat16")
        return config.dtype
    if dtype not in DTYPE_BYTES:
        raise ConfigError(f"dtype is {dtype!r}; it must be {AUTO_DTYPE!r} or one of {', '.join(DTYPE_BYTES)}")
    return dtype
