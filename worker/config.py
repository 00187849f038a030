"""Settings of a worker process, validated on construction. Command-line flags come from these fields."""

import math
from dataclasses import dataclass
from pathlib import Path

from core.errors import ConfigError
from core.request import Role
from engine.parallel.topology import ONE_RANK, ShardTopology

MIN_MODEL_LEN = 2  # one prompt token and one of the answer


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """Settings of one rank of a worker; all ranks of a worker have the same, but for `rank` and `cpu_ids`.

    Attributes:
        name: the worker's stable name, the same after a restart.
        role: which half it is for at the start.
        model_dir: checkpoint folder.
        dtype: `auto` (the checkpoint's), `float32`, `bfloat16` or `float16`.
        device: torch device of weights and KV blocks.
        kernels: `auto`, `native` or `torch`, see `engine.kernels.choice`.
        host: address its gRPC server binds to and is reached at.
        routers: `host:port` of the routers it registers with.
        block_size: tokens per KV block.
        kv_cache_gb: memory of the KV block pool of all ranks together, GiB.
        max_model_len: most tokens of prompt plus answer; None takes the model's context.
        max_num_seqs: sequences that decode at once at most.
        max_num_batched_tokens: most tokens of one engine step; bounds how long a prompt chunk stalls decoding.
        topology: how the model is divided among ranks.
        rank: which of them this process is; 0 leads.
        cpu_ids: cores the process is pinned to; empty leaves it to the system. One torch thread per core.
    """

    name: str
    role: Role
    model_dir: Path
    dtype: str = "auto"
    device: str = "cpu"
    kernels: str = "auto"
    host: str = "127.0.0.1"
    routers: tuple[str, ...] = ()
    block_size: int = 16
    kv_cache_gb: float = 1.0
    max_model_len: int | None = None
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 512
    topology: ShardTopology = ONE_RANK
    rank: int = 0
    cpu_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in ("block_size", "kv_cache_gb", "max_num_seqs", "max_num_batched_tokens"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value}; it must be positive")
        if self.max_model_len is not None and self.max_model_len < MIN_MODEL_LEN:
            raise ConfigError(f"max_model_len is {self.max_model_len}; it must be at least {MIN_MODEL_LEN}")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ConfigError(
                f"max_num_batched_tokens is {self.max_num_batched_tokens}; it must be at least max_num_seqs "
                f"({self.max_num_seqs}), for every sequence decodes one token a step"
            )
        if not self.model_dir.is_dir():
            raise ConfigError(f"the model folder {self.model_dir} does not exist; pass --model DIR")
        if not 0 <= self.rank < self.topology.world_size:
            raise ConfigError(
                f"rank is {self.rank}; the ranks of this worker are 0 to {self.topology.world_size - 1}"
            )

    @property
    def rank_name(self) -> str:
        """This rank, for people."""
        return self.name if self.topology.world_size == 1 else f"rank {self.rank} of {self.name}"
