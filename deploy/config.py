"""Settings of `baton serve`, validated on construction; its flags are made from these fields."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from core.errors import ConfigError
from core.flags import flag
from core.logs import check_log_format
from core.request import HALVES, Role
from engine.config import ModelConfig
from engine.parallel.topology import ShardTopology
from kvtransfer.ucx import check_ucx_tls
from router.auth.key_file import load_keys
from router.config import MAX_PORT
from router.observe.settings import check_otlp_endpoint
from router.state.address import parse_state
from worker.config import DIGEST_EVERY, KV_DIRECTIONS, KV_TRANSPORTS

MIN_HANG_TIMEOUT_S = 5.0  # a worker that works says so every second, and comes back to a restarted router in two
DEMO_NAME = "demo"
OWN_REDIS = "redis"
FIRST_QUESTION = "What is the capital of France?"
POSITIVE = (
    "block_size", "decode_block_size", "kv_cache_gb", "max_model_len", "max_num_seqs", "max_num_batched_tokens",
    "request_timeout_s", "max_body_mb", "slo_ttft_ms", "slo_tpot_ms",
    "admit_ttft_ms", "max_waiting",
)  # fmt: skip
CHOICES = {
    "dtype": ("auto", "float32", "bfloat16", "float16"),
    "device": ("cpu", "cuda"),
    "kernels": ("auto", "native", "torch"),
    "kv_transport": tuple(KV_TRANSPORTS),
    "kv_direction": KV_DIRECTIONS,
    "kv_verify": tuple(DIGEST_EVERY),
}


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """One cluster, on this machine or on the nodes of a Ray cluster.

    Names follow FastDeploy's and vLLM's flags where they have one.

    Raises:
        ConfigError: on construction, naming the flag and its value.
    """

    model: Path | None = flag(None, "Checkpoint folder (Hugging Face layout). Default: the built-in demo model.")
    served_model_name: str | None = flag(None, "Name clients use. Default: `demo`, or the folder's name.")
    host: str = flag("127.0.0.1", "Address to listen on.")
    port: int = flag(8000, "HTTP port.")
    grpc_port: int | None = flag(None, "Port of the gRPC API for clients and operators. Default: --port + 1.")
    routers: int = flag(1, "Number of router processes, which share both ports; several need --state redis.")
    ray_address: str | None = flag(
        None, "Ray cluster to run on: HOST:PORT of its head, or auto. Default: start Ray on this machine."
    )
    prefill: int = flag(1, "Number of prefill workers.")
    decode: int = flag(1, "Number of decode workers.")
    dtype: str = flag("auto", "Type of weights and KV: auto (the checkpoint's), float32, bfloat16 or float16.")
    device: str = flag(
        "cpu", "Device of the workers: cpu, or cuda with one GPU per rank (cuda has not been run yet)."
    )
    kernels: str = flag("auto", "CPU kernels: native (compiled on first use), torch, or auto: native where possible.")
    tensor_parallel_size: int = flag(1, "Ranks of each worker that share its attention and dense layers.")
    expert_parallel_size: int = flag(
        1,
        "Ranks of each worker that share its experts; without tensor parallelism each also has sequences of its own.",
    )
    num_redundant_experts: int = flag(0, "Further copies of busy experts in each layer, over all ranks of a worker.")
    decode_tensor_parallel_size: int | None = flag(
        None, "The same of each decode worker. Default: --tensor-parallel-size."
    )
    block_size: int = flag(16, "Tokens per KV block.")
    decode_block_size: int | None = flag(
        None, "The same of decode workers; one of both is a multiple of the other. Default: --block-size."
    )
    kv_cache_gb: float = flag(1.0, "KV block pool of each worker, GiB.")
    kv_host_gb: float = flag(0.0, "Host memory of each worker for KV blocks that its pool evicts, GiB; 0 for none.")
    enable_prefix_caching: bool = flag(True, "Keep KV for later requests that begin with the same tokens.")
    kv_transport: str = flag("auto", "What moves KV between workers: nixl, collective, or auto: nixl where it works.")
    kv_direction: str = flag("push", "Who moves KV: push, the worker that has it; pull, the one that gets it.")
    kv_verify: str = flag("off", "Checksums of KV that moves: off, sample (every 16th block) or always.")
    nixl_backend: str = flag("UCX", "Plugin of NIXL that moves the bytes.")
    ucx_tls: str | None = flag(
        None, "Transports that UCX may use, such as tcp,sm. Default: the environment's UCX_TLS."
    )
    max_model_len: int | None = flag(None, "Most tokens of prompt plus answer. Default: the model's context.")
    max_num_seqs: int = flag(64, "Sequences that a decode worker runs at once at most.")
    max_num_batched_tokens: int = flag(512, "Most tokens of one engine step; longer prompts are computed in chunks.")
    request_timeout_s: float = flag(600.0, "Seconds after which a request that has not ended fails with status 504.")
    drain_timeout_s: float = flag(
        30.0, "Seconds for what is under way to end or to go elsewhere when a router or a worker stops; 0 for none."
    )
    hang_timeout_s: float = flag(
        15.0, "Seconds of silence after which a worker is killed, to be started anew: at least 5; 0 never kills."
    )
    max_body_mb: float = flag(8.0, "Largest HTTP body, MiB; larger ones are refused with status 413.")
    auto_roles: bool = flag(True, "Change roles of workers as the load asks; `baton roles auto` switches it later.")
    slo_ttft_ms: float = flag(2000.0, "Time to the first token that roles are chosen for, milliseconds.")
    slo_tpot_ms: float = flag(100.0, "Mean time per token after the first that roles are chosen for, milliseconds.")
    admit_ttft_ms: float = flag(
        30_000.0, "A request whose first token is predicted later than this is refused with status 429, milliseconds."
    )
    max_waiting: int = flag(
        2048, "Most requests of one tenant that wait for a worker; more are refused with status 429."
    )
    operator_key_file: Path | None = flag(
        None, "File whose first line is the key for changing roles over HTTP. Default: BATON_OPERATOR_KEY, or no key."
    )
    api_keys_file: Path | None = flag(
        None, "File of API keys, made by `baton keys create`. Default: nobody needs a key for answers."
    )
    state: str | None = flag(
        None,
        "Where routers agree on who decides about roles: memory, for one router; redis, which starts a server for "
        "this cluster; or a Redis database per cluster, as redis://HOST:PORT/DATABASE or redis://USER:PASSWORD@..., "
        "or rediss://... for TLS. Default: that of --state-file, else memory.",
        is_secret=True,
    )
    state_file: Path | None = flag(
        None,
        "File whose first line is what --state would be: whoever lists processes sees a password in a flag. "
        "Default: the environment's BATON_STATE.",
    )
    tls_cert_file: Path | None = flag(
        None, "Certificate (PEM, with those between it and the CA's) of the HTTP and gRPC ports. Default: no TLS."
    )
    tls_key_file: Path | None = flag(None, "Private key of --tls-cert-file.")
    tls_client_ca_file: Path | None = flag(
        None, "CA certificates: clients must show a certificate of theirs. Default: clients need none."
    )
    tls_ca_file: Path | None = flag(
        None,
        "CA certificates that commands on this machine know --tls-cert-file by. Default: those the system trusts.",
    )
    cluster_tls_dir: Path | None = flag(
        None,
        "Folder with ca.pem, cert.pem and key.pem, as `baton certs` makes it: mutual TLS between the cluster's own "
        "processes. Default: none.",
    )
    cluster_token_file: Path | None = flag(
        None,
        "File with the token that the cluster's processes know each other by; with several lines the first is shown "
        "and all are accepted. Default: the environment's BATON_CLUSTER_TOKEN, or a random one.",
    )
    metrics_port: int | None = flag(
        None, "Port of Prometheus metrics at /metrics; each further router has the next one. Default: no metrics."
    )
    metrics_host: str = flag("127.0.0.1", "Address that metrics are served at; they need no key.")
    otlp_endpoint: str | None = flag(
        None,
        "URL of an OpenTelemetry collector that gets spans by OTLP over HTTP, such as http://localhost:4318. "
        "Default: the environment's OTEL_EXPORTER_OTLP_ENDPOINT, or no spans.",
    )
    log_format: str | None = flag(
        None, "Log lines: text or json. Default: the environment's BATON_LOG_FORMAT, or text."
    )
    ask: str = flag(FIRST_QUESTION, "Question asked once when the cluster is ready; empty to ask none.")

    def __post_init__(self) -> None:
        for name, needed in (("routers", "router"), ("prefill", "prefill worker"), ("decode", "decode worker")):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} is {getattr(self, name)}; at least one {needed} is needed")
        for name in POSITIVE:
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"--{name.replace('_', '-')} is {value}; it must be positive and finite")
        self._check_process_timeouts()
        self._check_ports()
        self._check_block_sizes()
        self._check_host_tier(max(self.topology_of(role).world_size for role in HALVES))
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise ConfigError(f"--{name.replace('_', '-')} is {value!r}; it must be one of {', '.join(choices)}")
        if self.ucx_tls is not None:
            check_ucx_tls(self.ucx_tls)
        self._check_state()
        self._check_keys()
        self._check_tls()
        self._check_telemetry()
        if self.model is not None and not self.model.is_dir():
            raise ConfigError(
                f"--model {self.model} is not a folder; pass a checkpoint folder, or nothing for the demo"
            )

    def _check_telemetry(self) -> None:
        port = self.metrics_port or 0
        if not 0 <= port <= MAX_PORT:
            raise ConfigError(f"--metrics-port is {port}; a port is between 0 and {MAX_PORT}")
        if port and port in {self.port, self.effective_grpc_port}:
            raise ConfigError(f"--metrics-port is {port}, where the API is; metrics need a port of their own")
        if self.otlp_endpoint is not None:
            check_otlp_endpoint(self.otlp_endpoint, "--otlp-endpoint")
        if self.log_format is not None:
            check_log_format(self.log_format, "--log-format")

    def _check_keys(self) -> None:
        if self.api_keys_file is not None:
            load_keys(self.api_keys_file)

    def _check_host_tier(self, num_ranks: int) -> None:
        if not 0 <= self.kv_host_gb < math.inf:
            raise ConfigError(f"--kv-host-gb is {self.kv_host_gb}; it must be 0 (none) or a size in GiB")
        if self.kv_host_gb and not self.enable_prefix_caching:
            raise ConfigError(
                f"--kv-host-gb is {self.kv_host_gb}, but with --no-enable-prefix-caching nothing would ever go "
                "there; leave one of them out"
            )
        if self.kv_host_gb and num_ranks > 1:
            raise ConfigError(
                f"--kv-host-gb is {self.kv_host_gb}, but workers of {num_ranks} ranks keep no KV in "
                "host memory yet; leave it at 0"
            )

    def _check_state(self) -> None:
        if self.state is not None and self.state != OWN_REDIS:
            parse_state(self.state)
        if self.state_file is not None and self.state is not None:
            raise ConfigError("--state and --state-file are both given; leave one of them out")

    def _check_tls(self) -> None:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            given, missing = ("cert", "key") if self.tls_key_file is None else ("key", "cert")
            raise ConfigError(f"--tls-{given}-file is given without --tls-{missing}-file; TLS needs both")
        for name in ("tls_client_ca_file", "tls_ca_file"):
            if getattr(self, name) is not None and self.tls_cert_file is None:
                flag_name = name.replace("_", "-")
                raise ConfigError(
                    f"--{flag_name} is given, but TLS is off; it needs --tls-cert-file and --tls-key-file"
                )

    def _check_block_sizes(self) -> None:
        small, large = sorted(self.block_size_of(role) for role in HALVES)
        if large % small:
            raise ConfigError(
                f"--decode-block-size is {self.decode_block_size} and --block-size {self.block_size}; one must be a "
                "multiple of the other"
            )

    @contextmanager
    def _naming_decode_size(self) -> Iterator[None]:
        """Has an error about the division of decode workers name the flag that they have to themselves."""
        try:
            yield
        except ConfigError as error:
            if self.decode_tensor_parallel_size is None:
                raise
            raise ConfigError(
                f"with --decode-tensor-parallel-size {self.decode_tensor_parallel_size}: {error.message}"
            ) from error

    def _check_process_timeouts(self) -> None:
        if not 0 <= self.drain_timeout_s < math.inf:
            raise ConfigError(f"--drain-timeout-s is {self.drain_timeout_s}; it must be 0 (no time) or more seconds")
        if self.hang_timeout_s and not MIN_HANG_TIMEOUT_S <= self.hang_timeout_s < math.inf:
            raise ConfigError(
                f"--hang-timeout-s is {self.hang_timeout_s}; it must be 0 (never kill) or at least "
                f"{MIN_HANG_TIMEOUT_S:g} seconds"
            )

    def _check_ports(self) -> None:
        for name, port in (("port", self.port), ("grpc-port", self.effective_grpc_port)):
            if not 0 <= port <= MAX_PORT:
                raise ConfigError(f"--{name} is {port}; a port is between 0 and {MAX_PORT}")
        if self.port == self.effective_grpc_port != 0:
            raise ConfigError(f"--grpc-port is {self.port}, as is --port; HTTP and gRPC need a port each")

    @property
    def model_name(self) -> str:
        """The name clients use."""
        return self.served_model_name or (DEMO_NAME if self.model is None else self.model.resolve().name)

    def topology_of(self, role: Role) -> ShardTopology:
        """How each worker of a role is divided among ranks.

        Raises:
            ConfigError: the sizes do not go together; names the flags.
        """
        if role is Role.PREFILL or self.decode_tensor_parallel_size is None:
            return ShardTopology(self.tensor_parallel_size, self.expert_parallel_size, self.num_redundant_experts)
        with self._naming_decode_size():
            return ShardTopology(
                self.decode_tensor_parallel_size, self.expert_parallel_size, self.num_redundant_experts
            )

    def check_model(self, model: ModelConfig) -> None:
        """Makes sure that a model can be divided among the ranks of workers of both roles.

        Raises:
            ConfigError: it cannot; names the flag, its value and the field of `config.json`.
        """
        self.topology_of(Role.PREFILL).check(model)
        with self._naming_decode_size():
            self.topology_of(Role.DECODE).check(model)

    def block_size_of(self, role: Role) -> int:
        """Tokens per KV block of the workers of a role."""
        if role is Role.PREFILL or self.decode_block_size is None:
            return self.block_size
        return self.decode_block_size

    @property
    def num_ranks(self) -> int:
        """Ranks of all workers: a process each."""
        sizes = {role: self.topology_of(role).world_size for role in HALVES}
        return self.prefill * sizes[Role.PREFILL] + self.decode * sizes[Role.DECODE]

    @property
    def effective_grpc_port(self) -> int:
        """The gRPC port."""
        if self.grpc_port is None:
            return self.port + 1 if self.port else 0
        return self.grpc_port
