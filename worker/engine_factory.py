"""Loads the engine as the worker's settings ask: turns a size in GiB into a number of blocks."""

from engine.config import ModelConfig
from engine.engine import Engine
from engine.sizing import blocks_in, kv_layout, serving_dtype
from worker.config import WorkerConfig

GIB = 1024**3


def load_engine(config: WorkerConfig) -> Engine:
    """One model replica with the KV pool the settings name.

    Raises:
        CheckpointError: the model cannot be served.
        ConfigError: a setting cannot work, such as a pool too small for one sequence of `max_model_len`.
    """
    model = ModelConfig.from_dir(config.model_dir)
    layout = kv_layout(model, config.block_size, serving_dtype(config.dtype, model))
    return Engine.load(
        config.model_dir,
        dtype=config.dtype,
        block_tokens=config.block_size,
        num_blocks=blocks_in(layout, int(config.kv_cache_gb * GIB)),
        max_model_len=config.max_model_len,
        device=config.device,
        kernels=config.kernels,
    )
