"""Settings of a router process, validated on construction. Command-line flags come from these fields."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from core.errors import ConfigError
from core.logs import TEXT, check_log_format
from core.secrets import check_secret
from router.observe.settings import check_otlp_endpoint
from router.state.address import MEMORY, parse_state
from rpc.security import OPEN, RpcSecurity, TlsFiles

MAX_PORT = 65535
POSITIVE_FLOATS = (
    "request_timeout_s", "placement_timeout_s", "heartbeat_timeout_s", "slo_ttft_ms", "slo_tpot_ms",
    "admit_ttft_ms",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RouterConfig:
    """Settings of one router process.

    Attributes:
        model_dir: checkpoint folder; the router reads its tokenizer, chat template and context length.
        served_model_name: the name clients use in `model`.
        host: address the HTTP and gRPC servers bind to.
        port: HTTP port.
        grpc_port: port of the gRPC API for clients and operators.
        cluster_host: address that workers and their supervisor reach this router at.
        cluster_port: the port for that; each router has its own. 0 takes a free one.
        reuse_port: whether other routers of this user may listen on the HTTP and gRPC port, too (SO_REUSEPORT); the
            system then divides connections among them.
        max_model_len: most tokens of prompt plus answer; at most the model's context.
        max_body_bytes: larger HTTP bodies are refused with status 413.
        request_timeout_s: a request that has not ended by then is cancelled with status 504.
        placement_timeout_s: how long a new request waits for a worker of a missing role before status 503.
        heartbeat_timeout_s: a worker that has been silent this long is treated as dead.
        drain_timeout_s: how long requests may take to end when this router stops, and the work of a worker to go
            elsewhere or to end when that is restarted.
        max_attempts: how often a request is placed before it fails with status 503.
        auto_roles: whether the controller changes roles as the load asks, until an operator says otherwise.
        slo_ttft_ms: the time to the first token that it works towards.
        slo_tpot_ms: likewise the mean time per token after it.
        admit_ttft_ms: a request whose first token is predicted later than this is refused with status 429.
        max_waiting: most requests of one tenant that wait for a worker; more are refused likewise.
        metrics_host: address that Prometheus metrics are served at.
        metrics_port: their port, of this router alone; 0 takes a free one, None serves none.
        otlp_endpoint: URL of an OTLP collector that spans go to over HTTP; None makes none.
        log_format: one of `core.logs.LOG_FORMATS`.
        operator_key: a key for operators. Without one, and without API keys, changes of roles over HTTP are refused.
            Not in the repr.
        state: where routers agree on who decides: `memory`, or the URL of a Redis database. May hold a password.
        api_keys_file: the API keys, as `baton keys` writes them; None when nobody needs one.
        console_key: a key for everything that whoever starts the router uses itself; None for none. Not in the repr.
        num_routers: that share the ports, each with an equal part of what every key may use.
        tls: of the ports for clients and operators, HTTP and gRPC; None for plain text.
        cluster_security: of the cluster port, and of the calls to workers.
    """

    model_dir: Path
    served_model_name: str
    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int = 8001
    cluster_host: str = "127.0.0.1"
    cluster_port: int = 0
    reuse_port: bool = False
    max_model_len: int = 8192
    max_body_bytes: int = 8 * 1024 * 1024
    request_timeout_s: float = 600.0
    placement_timeout_s: float = 30.0
    heartbeat_timeout_s: float = 10.0
    drain_timeout_s: float = 30.0
    max_attempts: int = 8
    auto_roles: bool = True
    slo_ttft_ms: float = 2000.0
    slo_tpot_ms: float = 100.0
    admit_ttft_ms: float = 30_000.0
    max_waiting: int = 2048
    operator_key: str | None = field(default=None, repr=False)
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None
    otlp_endpoint: str | None = None
    log_format: str = TEXT
    state: str = field(default=MEMORY, repr=False)
    api_keys_file: Path | None = None
    console_key: str | None = field(default=None, repr=False)
    num_routers: int = 1
    tls: TlsFiles | None = None
    cluster_security: RpcSecurity = OPEN

    def __post_init__(self) -> None:
        for name in ("port", "grpc_port", "cluster_port", "metrics_port"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= MAX_PORT:
                raise ConfigError(f"{name} is {value}; a port is between 0 and {MAX_PORT}")
        for name in (
            "max_model_len", "max_body_bytes", "max_attempts", "max_waiting", "num_routers", *POSITIVE_FLOATS
        ):  # fmt: skip
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ConfigError(f"{name} is {value}; it must be positive and finite")
        if not 0 <= self.drain_timeout_s < math.inf:
            raise ConfigError(f"drain_timeout_s is {self.drain_timeout_s}; it must be 0 (no time) or more seconds")
        if not self.model_dir.is_dir():
            raise ConfigError(f"the model folder {self.model_dir} does not exist; pass --model DIR")
        parse_state(self.state)
        if self.otlp_endpoint is not None:
            check_otlp_endpoint(self.otlp_endpoint, "otlp_endpoint")
        check_log_format(self.log_format, "log_format")
        if self.operator_key is not None:
            check_operator_key(self.operator_key, "operator_key")


def check_operator_key(key: str, name: str) -> None:
    """Makes sure that a key can be sent in an HTTP header and not be guessed soon.

    Args:
        key: the key; it is not in the error.
        name: where it comes from, for the error.

    Raises:
        ConfigError: it cannot.
    """
    check_secret(key, name, "an operator's key")
