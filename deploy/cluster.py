"""A whole cluster as one context: routers, prefill workers, decode workers, ready to serve and kept so."""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from core.errors import ConfigError, UnavailableError
from core.ids import WorkerId
from core.request import Role
from deploy.client_key import use_key
from deploy.config import OWN_REDIS, ServeConfig
from deploy.fence_client import FenceClient
from deploy.free_port import free_port
from deploy.keeping import keeper_of, keeping
from deploy.machine import check_machine
from deploy.operator_key import read_operator_key
from deploy.own_redis import own_redis
from deploy.ray_members import cluster_address
from deploy.ray_nodes import RayNodes
from deploy.ray_session import LOOPBACK, open_ray
from deploy.router_drain import drain_routers
from deploy.security import cluster_security, public_tls
from deploy.state_setting import read_state
from deploy.telemetry import log_format_of, metrics_port_of, otlp_endpoint_of
from engine.config import ModelConfig
from router.auth.api_key import new_key
from router.config import RouterConfig
from router.process import bind_http
from router.state.address import MEMORY
from router.text.tokenizer import TextCodec
from worker.config import WorkerConfig

READY_TIMEOUT_S = 60.0  # from all processes started to all of them attached
READY_POLL_S = 0.05
MIB = 1024 * 1024
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
def run_cluster(
    config: ServeConfig, model_dir: Path, say: Say, is_hurried: Callable[[], bool] | None = None
) -> Iterator[ClusterAddresses]:
    """Starts everything and waits until it serves; leaving stops everything.

    What dies meanwhile is started again.

    Args:
        config: the settings.
        model_dir: checkpoint folder.
        say: hears what happens.
        is_hurried: asked, on leaving without an error, whether requests under way need not be let end any more; None
            lets none end.

    Raises:
        BatonError: what kept it from starting.
    """
    settings = router_settings(config, model_dir)
    use_key(settings.console_key)
    check_ports(settings, config.routers)
    config.check_model(ModelConfig.from_dir(model_dir))
    if config.ray_address is None:
        check_machine(config)
    with contextlib.ExitStack() as stack:
        if read_state(config, os.environ) == OWN_REDIS:
            settings = replace(settings, state=stack.enter_context(own_redis()))
        say("starting Ray" if config.ray_address is None else f"connecting to Ray at {config.ray_address}")
        session = stack.enter_context(open_ray(config.ray_address, config.num_ranks))
        routers = router_group(settings, config.routers, session.host)
        nodes = RayNodes(session, model_dir)
        workers = [worker_settings(config, routers, slot) for slot in worker_slots(config)]
        keeper = keeper_of(routers, workers, session, nodes)
        stack.callback(keeper.stop)
        say(describe_start(config))
        keeper.start()
        for member in keeper.statuses():
            say(f"{member.name} serves at {member.address}")
        security = settings.cluster_security
        fences = [FenceClient(cluster_address(router), security) for router in routers]
        wait_until_attached(fences, config)
        host, scheme = local_host(config.host), "http" if settings.tls is None else "https"
        url, grpc_address = f"{scheme}://{host}:{settings.port}", f"{host}:{settings.grpc_port}"
        with keeping(keeper, nodes.kill, config.hang_timeout_s, security):
            yield ClusterAddresses(url, grpc_address, session.log_dir)
        if is_hurried is not None:
            drain_routers(fences, config.drain_timeout_s, is_hurried, say)


def describe_start(config: ServeConfig) -> str:
    """What is about to be started."""
    workers = f"{config.prefill} prefill and {config.decode} decode worker(s)"
    ranks = f" of {config.num_ranks} ranks in all" if config.num_ranks > config.prefill + config.decode else ""
    return f"starting {config.routers} router(s), {workers}{ranks}"


def router_group(settings: RouterConfig, num_routers: int, host: str) -> list[RouterConfig]:
    """The settings of each router, from those that all share.

    Args:
        settings: of any of them.
        num_routers: how many.
        host: address of this machine at which workers reach them.
    """
    return [
        replace(
            settings,
            num_routers=num_routers,
            reuse_port=num_routers > 1,
            cluster_host=host,
            cluster_port=free_port(host),  # workers must know it before it has started
            metrics_port=metrics_port_of(settings.metrics_port, number),
        )
        for number in range(num_routers)
    ]


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
    state = read_state(config, os.environ)
    return RouterConfig(
        model_dir=model_dir,
        served_model_name=config.model_name,
        host=config.host,
        port=config.port or free_port(config.host),  # the same after every start of a router
        grpc_port=config.effective_grpc_port or free_port(config.host),
        max_model_len=max_model_len,
        max_body_bytes=int(config.max_body_mb * MIB),
        request_timeout_s=config.request_timeout_s,
        drain_timeout_s=config.drain_timeout_s,
        auto_roles=config.auto_roles,
        slo_ttft_ms=config.slo_ttft_ms,
        slo_tpot_ms=config.slo_tpot_ms,
        admit_ttft_ms=config.admit_ttft_ms,
        max_waiting=config.max_waiting,
        operator_key=read_operator_key(config.operator_key_file, os.environ),
        state=MEMORY if state == OWN_REDIS else state,  # of a server of our own once it runs
        metrics_host=config.metrics_host,
        metrics_port=config.metrics_port,
        otlp_endpoint=otlp_endpoint_of(config.otlp_endpoint, os.environ),
        log_format=log_format_of(config.log_format, os.environ),
        api_keys_file=config.api_keys_file and config.api_keys_file.absolute(),
        console_key=new_key() if config.api_keys_file else None,
        tls=public_tls(config),
        cluster_security=cluster_security(config, os.environ, LOOPBACK if config.ray_address is None else None),
    )


def local_host(host: str) -> str:
    """Where this machine reaches what listens on `host`."""
    return LOOPBACK if host == ANY_ADDRESS else host


def check_ports(config: RouterConfig, num_routers: int = 1) -> None:
    """Makes sure, before anything is started, that the routers will be able to listen, and nobody else does.

    Raises:
        ConfigError: a port is taken; names the flag.
    """
    bind_http(config.host, config.port).close()
    for number in range(num_routers):
        if (port := metrics_port_of(config.metrics_port, number)) is not None:
            bind_http(config.metrics_host, port, "--metrics-port").close()
    try:
        socket.create_server((config.host, config.grpc_port)).close()
    except OSError as error:
        raise ConfigError(f"gRPC port {config.grpc_port} is taken; choose another with --grpc-port") from error


def worker_settings(config: ServeConfig, routers: Sequence[RouterConfig], slot: tuple[Role, int]) -> WorkerConfig:
    """The share of the settings of the worker in a slot, as of its rank 0; machine and cores are not chosen yet."""
    router, (role, number) = routers[0], slot
    return WorkerConfig(
        name=f"{role.value}-{number}",
        role=role,
        model_dir=router.model_dir,
        dtype=config.dtype,
        device=config.device,
        kernels=config.kernels,
        routers=tuple(cluster_address(router) for router in routers),
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
        drain_timeout_s=config.drain_timeout_s,
        log_format=router.log_format,
        security=router.cluster_security,
        topology=config.topology_of(role),
    )


def wait_until_attached(routers: Sequence[FenceClient], config: ServeConfig) -> None:
    """Waits until every router has attached to all workers.

    Raises:
        UnavailableError: one has not after a minute, or does not answer then, with what it says.
    """
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    num_workers = config.prefill + config.decode
    for router in routers:
        while len(attached := attached_to(router, deadline_s)) < num_workers:
            if time.monotonic() > deadline_s:
                names = ", ".join(worker.name for worker in attached) or "none"
                raise UnavailableError(
                    f"{num_workers} workers started, the router at {router.cluster_address} attached to {names} "
                    f"within {READY_TIMEOUT_S:g} s; see Ray's logs"
                )
            time.sleep(READY_POLL_S)


def attached_to(router: FenceClient, deadline_s: float) -> Collection[WorkerId]:
    """The workers that a router has attached to; none when it misses the deadline of a call, as one that starts may.

    Raises:
        UnavailableError: it does not answer, and it is past `deadline_s` of the monotonic clock.
    """
    try:
        return router.silences()
    except UnavailableError:
        if time.monotonic() > deadline_s:
            raise
        return ()
