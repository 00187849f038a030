"""A connection to Ray: to one of our own on this machine, or to one that runs already. Not what is done with it.

Ray owns the lifecycle of processes; no token, prompt or KV byte passes through it. Only modules called `deploy.ray_…`
call it.
"""

import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.exceptions import RayError

from core.errors import ConfigError
from deploy.processes import wait_ended
from router.config import MAX_PORT

LOOPBACK = "127.0.0.1"
AUTO = "auto"
CONNECT_TIMEOUT_S = 5.0
OBJECT_STORE_BYTES = 128 * 1024 * 1024  # hardly used; a much smaller store made start-up fail on a loaded machine
LEFTOVER_TIMEOUT_S = 10.0  # for processes that Ray has told to end
HALF_STARTED_TIMEOUT_S = 1.0  # for those of a Ray that was interrupted while it started: nobody tells all of them

# Ray's own health checks of nodes stay as slow as they are: a Ray of our own has one node, whose death ends us, too,
# and checks that find a dead node in 1.2 s have been seen to declare a busy one dead.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # leaves device variables alone on machines without devices
    "RAY_DEDUP_LOGS": "0",
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RaySession:
    """This process's connection to Ray.

    Attributes:
        namespace: of the names of this cluster's actors; no other cluster has it.
        node: Ray's id of this machine.
        host: address at which all of the cluster's processes reach this machine.
        log_dir: folder of the logs of this machine's processes.
        is_own: whether Ray was started for this cluster, and ends with it.
    """

    namespace: str
    node: str
    host: str
    log_dir: Path
    is_own: bool


@contextlib.contextmanager
def open_ray(address: str | None, num_ranks: int) -> Iterator[RaySession]:
    """A connection to Ray; leaving ends all processes of a Ray of our own, and of another one only what we started.

    Args:
        address: of a Ray that runs, `HOST:PORT` or `auto`; None starts one on this machine.
        num_ranks: how many ranks of workers must fit into our own; may exceed the number of cores, which they then
            share.

    Raises:
        ConfigError: there is no Ray at the address, or none that this process can work with.
    """
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    logging.getLogger("ray").setLevel(logging.ERROR)  # its start-up advice is not for people who run `baton serve`
    namespace = f"baton-{secrets.token_hex(4)}"
    if address is None:
        with no_leftovers():
            context = _init(
                address="local",
                namespace=namespace,
                num_cpus=max(num_ranks, os.cpu_count() or 1),
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
            )
            yield _session(context, namespace, LOOPBACK, is_own=True)
        return
    context = _connect(address, namespace)
    try:
        yield _session(context, namespace, context.address_info["node_ip_address"], is_own=False)
    finally:
        ray.shutdown()  # of a Ray that was there before, this ends the connection and our actors only


def _session(context: Any, namespace: str, host: str, *, is_own: bool) -> RaySession:  # noqa: ANN401 - Ray's
    info = context.address_info
    return RaySession(namespace, info["node_id"], host, Path(info["session_dir"]) / "logs", is_own)


def _init(**options: Any) -> Any:  # noqa: ANN401 - Ray's
    return ray.init(log_to_driver=False, configure_logging=False, **options)


def _connect(address: str, namespace: str) -> Any:  # noqa: ANN401 - Ray's
    check_address(address)
    try:
        return _init(address=address, namespace=namespace)
    except (ConnectionError, RuntimeError, ValueError, AssertionError, RayError) as error:
        ray.shutdown()
        raise _no_cluster(address, first_line(error)) from error


def check_address(address: str) -> None:
    """Makes sure that somebody listens at the address of a Ray that runs; Ray itself would try for a minute.

    Raises:
        ConfigError: nobody does, or it is not the address of a head.
    """
    if address == AUTO:
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or int(port) > MAX_PORT:
        raise ConfigError(
            f"--ray-address is {address}; pass HOST:PORT of the head of a Ray cluster that this machine is a node "
            f"of, or {AUTO}"
        )
    try:
        socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise _no_cluster(address, str(error)) from error


def _no_cluster(address: str, reason: str) -> ConfigError:
    return ConfigError(
        f"--ray-address {address} leads to no Ray cluster that this machine is a node of ({reason}); "
        "`ray start --head` starts one, `ray start --address HOST:PORT` adds this machine"
    )


def first_line(error: Exception) -> str:
    """What an error of Ray's says, without the pages that may follow."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextlib.contextmanager
def no_leftovers() -> Iterator[None]:
    """Shuts Ray down on leaving, started or half-way there, and waits until all processes begun within have ended."""
    before = set(psutil.Process().children(recursive=True))
    try:
        yield
    finally:
        # Listed now: what Ray orphans while it shuts down is nobody's child any more.
        processes = [child for child in psutil.Process().children(recursive=True) if child not in before]
        grace_s = LEFTOVER_TIMEOUT_S if ray.is_initialized() else HALF_STARTED_TIMEOUT_S
        ray.shutdown()
        end_leftovers(processes, grace_s)


def end_leftovers(processes: list[psutil.Process], grace_s: float) -> None:
    """Makes sure that processes of ours have ended; normally Ray has seen to it within the grace time."""
    for process in wait_ended(processes, grace_s):
        logger.warning("killing left-over process %d", process.pid)
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
