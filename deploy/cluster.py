"""A whole cluster as one context: router, prefill workers, decode workers, ready to serve."""

import contextlib
import itertools
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from core.errors import ConfigError, UnavailableError
from core.request import Role
from deploy.config import ServeConfig
from deploy.cores import cores_of_rank
from deploy.fence_client import FenceClient
from deploy.machine import check_machine
from deploy.operator_key import read_operator_key
from deploy.ray_cluster import start_ray
from deploy.security import cluster_security, public_tls
from deploy.state_setting import read_state
from deploy.status_client import get_status
from deploy.supervisor import Kill, Supervisor
from deploy.telemetry import log_format_of, metrics_port_of, otlp_endpoint_of
from engine.config import ModelConfig
from router.config import RouterConfig
from router.process import bind_http
from router.text.tokenizer import TextCodec
from rpc.security import OPEN, RpcSecurity
from worker.config import WorkerConfig

READY_TIMEOUT_S = 60.0  # from all processes started to all of them attached
READY_POLL_S = 0.05
MIB = 1024 * 1024
LOOPBACK = "127.0.0.1"
ANY_ADDRESS = "0.0.0.0"  # noqa: S104 - compared with, and bound to only when the operator says so

Say = Callable[[str], None]
"""Shows one line of progress."""


@dataclass(frozen=True, slots=True)
class ClusterAddresses:
    """Where a running cluster is.

    Attributes:
        url: of the HTTP API.
        grpc_address: `host:port` of the gRPC services.
        log_dir: folder of all processes' logs.
    """

    url: str
    grpc_address: str
    log_dir: Path


@contextlib.contextmanager
def run_cluster(config: ServeConfig, model_dir: Path, say: Say) -> Iterator[ClusterAddresses]:
    """Starts everything and waits until it serves; leaving stops everything.

    Raises:
        BatonError: what kept it from starting.
    """
    router_config = router_settings(config, model_dir)
    check_ports(router_config)
    config.check_model(ModelConfig.from_dir(model_dir))
    check_machine(config)
    groups = group_settings(config, [worker_settings(config, router_config, slot) for slot in worker_slots(config)])
    say("starting Ray")
    with start_ray(config.num_ranks) as ray_cluster:
        router = ray_cluster.start_router(router_config)
        ranks = f" of {config.num_ranks} ranks in all" if config.num_ranks > len(groups) else ""
        say(f"starting the router, {config.prefill} prefill and {config.decode} decode worker(s){ranks}")
        workers = [ray_cluster.start_worker(group) for group in groups]
        addresses = ray_cluster.wait_router(router)
        host = local_host(config.host)
        grpc_address = f"{host}:{addresses.grpc_port}"
        for worker in workers:
            endpoint = ray_cluster.wait_worker(worker)
            say(f"worker {worker.name} serves at {endpoint.address}")
        inside, security = cluster_address(router_config), router_config.cluster_security
        wait_until_attached(inside, len(workers), security)
        scheme = "http" if router_config.tls is None else "https"
        with supervising(inside, ray_cluster.kill, config.hang_timeout_s, security):
            yield ClusterAddresses(f"{scheme}://{host}:{addresses.http_port}", grpc_address, ray_cluster.log_dir)


def supervising(
    cluster_address: str, kill: Kill, hang_timeout_s: float, security: RpcSecurity = OPEN
) -> contextlib.AbstractContextManager[None]:
    """While the context lasts, workers that hang are killed, to be started again; none with a timeout of 0."""
    if not hang_timeout_s:
        return contextlib.nullcontext()
    return Supervisor(FenceClient(cluster_address, security), kill, hang_timeout_s).running()


def cluster_address(config: RouterConfig) -> str:
    """Where workers and their supervisor reach a router."""
    return f"{config.cluster_host}:{config.cluster_port}"


def worker_slots(config: ServeConfig) -> list[tuple[Role, int]]:
    """Role and number of every worker; roles alternate, so that neighbours on few cores differ."""
    prefill = [(Role.PREFILL, number) for number in range(config.prefill)]
    decode = [(Role.DECODE, number) for number in range(config.decode)]
    return sorted(prefill + decode, key=lambda pair: (pair[1], pair[0] is Role.DECODE))


def router_settings(config: ServeConfig, model_dir: Path) -> RouterConfig:
    """The router's share of the settings."""
    max_model_len = config.max_model_len or TextCodec.load(model_dir).context_length
    if max_model_len is None:
        raise ConfigError(f"{model_dir}/config.json does not say how long its context is; pass --max-model-len")
    return RouterConfig(
        model_dir=model_dir,
        served_model_name=config.model_name,
        host=config.host,
        port=config.port,
        grpc_port=config.effective_grpc_port or free_port(config.host),
        cluster_host=LOOPBACK,  # workers talk to each other and to the router, all on this machine
        cluster_port=free_port(LOOPBACK),
        max_model_len=max_model_len,
        max_body_bytes=int(config.max_body_mb * MIB),
        request_timeout_s=config.request_timeout_s,
        auto_roles=config.auto_roles,
        slo_ttft_ms=config.slo_ttft_ms,
        slo_tpot_ms=config.slo_tpot_ms,
        operator_key=read_operator_key(config.operator_key_file, os.environ),
        metrics_host=config.metrics_host,
        metrics_port=metrics_port_of(config.metrics_port, router_index=0),
        otlp_endpoint=otlp_endpoint_of(config.otlp_endpoint, os.environ),
        log_format=log_format_of(config.log_format, os.environ),
        state=read_state(config, os.environ),
        tls=public_tls(config),
        cluster_security=cluster_security(config, os.environ, LOOPBACK),
    )


def local_host(host: str) -> str:
    """Where this machine reaches what listens on `host`."""
    return LOOPBACK if host == ANY_ADDRESS else host


def check_ports(config: RouterConfig) -> None:
    """Makes sure, before anything is started, that the router will be able to listen.

    Raises:
        ConfigError: a port is taken; names the flag.
    """
    bind_http(config.host, config.port).close()
    if config.metrics_port is not None:
        bind_http(config.metrics_host, config.metrics_port, "--metrics-port").close()
    try:
        socket.create_server((config.host, config.grpc_port)).close()
    except OSError as error:
        raise ConfigError(f"gRPC port {config.grpc_port} is taken; choose another with --grpc-port") from error


def free_port(host: str) -> int:
    """A port nobody listens on now. Workers must know the router's before it has started."""
    with socket.create_server((host, 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def worker_settings(config: ServeConfig, router: RouterConfig, slot: tuple[Role, int]) -> WorkerConfig:
    """The share of the settings of the worker in a slot, as of its rank 0; cores are not chosen yet."""
    role, number = slot
    return WorkerConfig(
        name=f"{role.value}-{number}",
        role=role,
        model_dir=router.model_dir,
        dtype=config.dtype,
        device=config.device,
        kernels=config.kernels,
        host=LOOPBACK,
        routers=(cluster_address(router),),
        block_size=config.block_size_of(role),
        kv_cache_gb=config.kv_cache_gb,
        kv_host_gb=config.kv_host_gb,
        enable_prefix_caching=config.enable_prefix_caching,
        max_model_len=router.max_model_len,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
        slo_tpot_ms=config.slo_tpot_ms,
        kv_transport=config.kv_transport,
        kv_direction=config.kv_direction,
        kv_verify=config.kv_verify,
        nixl_backend=config.nixl_backend,
        ucx_tls=config.ucx_tls,
        log_format=router.log_format,
        topology=config.topology_of(role),
        security=router.cluster_security,
    )


def group_settings(config: ServeConfig, workers: Sequence[WorkerConfig]) -> list[list[WorkerConfig]]:
    """The settings of all ranks of each worker; all these workers are on this machine."""
    places = itertools.count()
    return [
        [
            replace(worker, rank=rank, cpu_ids=cores_of_rank(next(places), config.num_ranks))
            for rank in range(worker.topology.world_size)
        ]
        for worker in workers
    ]


def wait_until_attached(cluster_address: str, num_workers: int, security: RpcSecurity = OPEN) -> None:
    """Waits until the router has attached to all workers.

    Args:
        cluster_address: of the router's cluster port, which takes no certificate or key of a client.
        num_workers: how many there are.
        security: of that port.

    Raises:
        UnavailableError: it has not after a minute, with what the router says.
    """
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while True:
        status = get_status(cluster_address, security)
        if len(status.workers) == num_workers:
            return
        if time.monotonic() > deadline_s:
            attached = ", ".join(worker.hello.endpoint.worker.name for worker in status.workers) or "none"
            raise UnavailableError(
                f"{num_workers} workers started, the router attached to {attached} within {READY_TIMEOUT_S:g} s"
            )
        time.sleep(READY_POLL_S)
