"""Loads the engine as the worker's settings ask: turns a size in GiB into a number of blocks."""

from core.errors import ConfigError
from engine.config import ModelConfig
from engine.engine import Engine
from engine.kv.layout import KvLayout
from engine.parallel.communicator import SOLO, Communicator
from engine.parallel.topology import ShardTopology
from engine.sizing import blocks_in, kv_layout, serving_dtype
from worker.config import WorkerConfig

GIB = 1024**3


def load_engine(config: WorkerConfig, communicator: Communicator = SOLO) -> Engine:
    """This rank's part of a model replica, with the KV pool the settings name. All ranks load at the same time.

    Raises:
        CheckpointError: the model cannot be served.
        ConfigError: a setting cannot work, such as a pool too small for one sequence of `max_model_len`, or host
            memory too small for one block.
    """
    model = ModelConfig.from_dir(config.model_dir)
    config.topology.check(model)
    layout = kv_layout(model, config.block_size, serving_dtype(config.dtype, model), config.topology)
    num_host_blocks = blocks_in(layout, int(config.kv_host_gb * GIB))
    if config.kv_host_gb and not num_host_blocks:
        raise ConfigError(
            f"kv_host_gb is {config.kv_host_gb}, less than one KV block of {layout.block_bytes} bytes; raise it, or "
            "leave it at 0"
        )
    return Engine.load(
        config.model_dir,
        dtype=config.dtype,
        block_tokens=config.block_size,
        num_blocks=blocks_of_worker(layout, config.topology, int(config.kv_cache_gb * GIB)),
        num_host_blocks=num_host_blocks,
        enable_prefix_caching=config.enable_prefix_caching,
        max_model_len=config.max_model_len,
        device=config.device,
        kernels=config.kernels,
        topology=config.topology,
        communicator=communicator,
    )


def blocks_of_worker(layout: KvLayout, topology: ShardTopology, size_bytes: int) -> int:
    """How many blocks fit in `size_bytes` bytes of all ranks together.

    A block lies on one rank, or a part of it on every rank: then all parts count.

    Args:
        layout: of one rank's part of a block.
        topology: of the worker; the number is a multiple of its partitions.
        size_bytes: memory of the pool.
    """
    num_blocks = blocks_in(layout, size_bytes // topology.block_parts)
    return num_blocks - num_blocks % topology.num_partitions
