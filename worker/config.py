"""Settings of a worker process, validated on construction. Command-line flags come from these fields."""

import math
from dataclasses import dataclass
from pathlib import Path

from core.errors import ConfigError
from core.logs import TEXT, check_log_format
from core.request import Role
from engine.parallel.topology import ONE_RANK, ShardTopology
from kvtransfer.ucx import check_ucx_tls
from rpc.security import OPEN, RpcSecurity

MIN_MODEL_LEN = 2  # one prompt token and one of the answer
KV_TRANSPORTS = {"auto": ("nixl", "collective"), "nixl": ("nixl",), "collective": ("collective",)}  # preferred first
KV_DIRECTIONS = ("push", "pull")
DIGEST_EVERY = {"off": 0, "sample": 16, "always": 1}  # blocks; a sample costs a sixteenth and finds a bad path soon


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
        kv_host_gb: host memory for KV blocks that the pool evicts, GiB; 0 for none.
        enable_prefix_caching: whether KV stays for later requests that begin with the same tokens.
        max_model_len: most tokens of prompt plus answer; None takes the model's context.
        max_num_seqs: sequences that decode at once at most.
        max_num_batched_tokens: most tokens of one engine step; bounds how long a prompt chunk stalls decoding.
        slo_tpot_ms: how long a step may get because of prompts computed beside sequences.
        kv_transport: a key of `KV_TRANSPORTS`: what may move KV between workers; `auto` takes what both ends have.
        kv_direction: `push`: the worker that has the KV writes it; `pull`: the one that gets it reads it.
        kv_verify: a key of `DIGEST_EVERY`: of how many blocks checksums travel with a handoff.
        nixl_backend: NIXL's plugin that moves the bytes.
        ucx_tls: transports that UCX may use, as in its `UCX_TLS`; None leaves it to the environment.
        drain_timeout_s: how long work may take to go or to end when the worker leaves.
        topology: how the model is divided among ranks.
        rank: which of them this process is; 0 leads.
        min_incarnation: its incarnation is at least this, wherever clocks stand; above that of its predecessor.
        node: the machine it runs on, as named by whoever starts and kills its process; empty where there is only one.
        log_format: one of `core.logs.LOG_FORMATS`.
        cpu_ids: cores the process is pinned to; empty leaves it to the system. One torch thread per core.
        security: of its gRPC server, and of its calls to routers and other workers.
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
    kv_host_gb: float = 0.0
    enable_prefix_caching: bool = True
    max_model_len: int | None = None
    max_num_seqs: int = 64
    max_num_batched_tokens: int = 512
    slo_tpot_ms: float = 100.0
    kv_transport: str = "auto"
    kv_direction: str = "push"
    kv_verify: str = "off"
    nixl_backend: str = "UCX"
    ucx_tls: str | None = None
    drain_timeout_s: float = 30.0
    topology: ShardTopology = ONE_RANK
    rank: int = 0
    min_incarnation: int = 0
    node: str = ""
    log_format: str = TEXT
    cpu_ids: tuple[int, ...] = ()
    security: RpcSecurity = OPEN

    def __post_init__(self) -> None:
        for name in ("block_size", "kv_cache_gb", "max_num_seqs", "max_num_batched_tokens", "slo_tpot_ms"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value}; it must be positive")
        if not 0 <= self.drain_timeout_s < math.inf:
            raise ConfigError(f"drain_timeout_s is {self.drain_timeout_s}; it must be 0 (no time) or more seconds")
        self._check_host_tier()
        self._check_transfers()
        check_log_format(self.log_format, "log_format")
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
    def kv_transports(self) -> tuple[str, ...]:
        """Names of the transports that may be used, preferred ones first."""
        return KV_TRANSPORTS[self.kv_transport]

    @property
    def digest_every(self) -> int:
        """Blocks to each whose checksum travels with a handoff; 0 for none."""
        return DIGEST_EVERY[self.kv_verify]

    @property
    def rank_name(self) -> str:
        """This rank, for people."""
        return self.name if self.topology.world_size == 1 else f"rank {self.rank} of {self.name}"

    def _check_transfers(self) -> None:
        if self.ucx_tls is not None:
            check_ucx_tls(self.ucx_tls)
        for name, choices in (
            ("kv_transport", KV_TRANSPORTS),
            ("kv_direction", KV_DIRECTIONS),
            ("kv_verify", DIGEST_EVERY),
        ):
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(choices)}")

    def _check_host_tier(self) -> None:
        if not 0 <= self.kv_host_gb < math.inf:
            raise ConfigError(f"kv_host_gb is {self.kv_host_gb}; it must be 0 (none) or a size in GiB")
        if self.kv_host_gb and not self.enable_prefix_caching:
            raise ConfigError(
                f"kv_host_gb is {self.kv_host_gb}, but prefix caching is off and nothing would ever go there; "
                "enable prefix caching or leave kv_host_gb at 0"
            )
        if self.kv_host_gb and self.topology.world_size > 1:
            raise ConfigError(
                f"kv_host_gb is {self.kv_host_gb}, but a worker of {self.topology.world_size} ranks keeps no KV in "
                "host memory yet; leave kv_host_gb at 0"
            )
