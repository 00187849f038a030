"""What a worker's limits must be for its model and its pool. Arithmetic only: nothing is allocated."""

from core.errors import ConfigError
from engine.config import ModelConfig
from engine.kv.layout import KvLayout


def check_limits(
    config: ModelConfig, layout: KvLayout, num_blocks: int, max_model_len: int, num_partitions: int
) -> None:
    """Makes sure that a pool can hold at least one sequence of the longest kind, on every rank.

    Args:
        config: the model.
        layout: of a block.
        num_blocks: in the pool's books.
        max_model_len: the longest sequence, in tokens.
        num_partitions: ranks that the blocks are divided over.

    Raises:
        ConfigError: it cannot, or a number makes no sense; names it.
    """
    if layout.block_tokens < 1:
        raise ConfigError(f"block_tokens is {layout.block_tokens}; it must be at least 1")
    if not 1 <= max_model_len <= config.max_position_embeddings:
        raise ConfigError(
            f"max_model_len is {max_model_len}; it must be between 1 and the model's context of "
            f"{config.max_position_embeddings} tokens"
        )
    if num_blocks % num_partitions:
        raise ConfigError(f"num_blocks is {num_blocks}; it must be a multiple of the {num_partitions} ranks")
    needed = layout.blocks_for(max_model_len) * num_partitions
    if num_blocks < needed:
        on_each = f" on each of {num_partitions} ranks" if num_partitions > 1 else ""
        raise ConfigError(
            f"num_blocks is {num_blocks}, but one sequence of max_model_len {max_model_len} tokens{on_each} needs "
            f"{needed} blocks of {layout.block_tokens}; raise num_blocks or lower max_model_len"
        )
