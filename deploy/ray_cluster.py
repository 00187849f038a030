"""All calls to Ray. Ray owns the lifecycle of processes; no token, prompt or KV byte passes through it."""

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import ray
from ray.exceptions import GetTimeoutError, RayActorError
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from core.errors import BatonError, ConfigError, UnavailableError
from core.ids import WorkerEndpoint
from deploy.actors import RouterActor, WorkerActor
from deploy.processes import wait_ended
from router.config import RouterConfig
from router.process import RouterAddresses
from worker.config import WorkerConfig

NAMESPACE = "baton"
OBJECT_STORE_BYTES = 128 * 1024 * 1024  # hardly used; a much smaller store made start-up fail on a loaded machine
PLACEMENT_TIMEOUT_S = 30.0  # an infeasible placement group waits for ever
START_TIMEOUT_S = 600.0  # a large checkpoint from a slow disk
STOP_TIMEOUT_S = 15.0
LEFTOVER_TIMEOUT_S = 10.0  # for processes that Ray has told to end
HALF_STARTED_TIMEOUT_S = 1.0  # for those of a Ray that was interrupted while it started: nobody tells all of them
MAX_RESTARTS = 100  # of one actor; each comes back as a new incarnation

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # leaves device variables alone on machines without devices
    "RAY_DEDUP_LOGS": "0",
}

logger = logging.getLogger(__name__)

Started = TypeVar("Started", WorkerEndpoint, RouterAddresses)


@dataclass(frozen=True, slots=True)
class Member:
    """An actor of the cluster.

    Attributes:
        name: the worker's name, or `router`.
        handle: Ray's.
    """

    name: str
    handle: Any


class RayCluster:
    """A Ray cluster on this machine, and the actors in it. Made by `start_ray`.

    Attributes:
        log_dir: folder of all processes' logs.
    """

    def __init__(self, log_dir: Path) -> None:
        self.log_dir = log_dir
        self._members: list[Member] = []

    def start_router(self, config: RouterConfig) -> Member:
        """Starts a router; `wait_router` says when it listens."""
        options = {"name": "router", "num_cpus": 0, "max_restarts": MAX_RESTARTS, "max_concurrency": 2}
        return self._add("router", ray.remote(RouterActor).options(**options).remote(config))

    def start_worker(self, config: WorkerConfig) -> Member:
        """Starts a worker in a placement group of its own; `wait_worker` says when it serves.

        Raises:
            ConfigError: the cluster has no room for it.
        """
        resource = "GPU" if config.device == "cuda" else "CPU"
        group = placement_group([{resource: 1}], strategy="STRICT_PACK", name=config.name)
        if not group.wait(PLACEMENT_TIMEOUT_S):
            raise ConfigError(
                f"Ray found no {resource} for worker {config.name} within {PLACEMENT_TIMEOUT_S:g} s; "
                f"the cluster has {ray.cluster_resources().get(resource, 0):g}"
            )
        options = {
            "name": config.name,
            "num_cpus": int(resource == "CPU"),
            "num_gpus": int(resource == "GPU"),
            "max_restarts": MAX_RESTARTS,
            "max_concurrency": 2,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(group),
        }
        return self._add(config.name, ray.remote(WorkerActor).options(**options).remote(config))

    def wait_router(self, member: Member) -> RouterAddresses:
        """Waits until a router listens. Raises what kept it from starting."""
        return self._wait(member, RouterAddresses)

    def wait_worker(self, member: Member) -> WorkerEndpoint:
        """Waits until a worker serves. Raises what kept it from starting."""
        return self._wait(member, WorkerEndpoint)

    def stop(self) -> None:
        """Stops all actors, the router first; bounded in time."""
        for member in self._members:
            with contextlib.suppress(GetTimeoutError, RayActorError):
                ray.get(member.handle.stop.remote(), timeout=STOP_TIMEOUT_S)
        self._members.clear()

    def _add(self, name: str, handle: Any) -> Member:  # noqa: ANN401 - a Ray handle has no type
        member = Member(name, handle)
        self._members.append(member)
        return member

    @staticmethod
    def _wait(member: Member, kind: type[Started]) -> Started:
        try:
            answer = ray.get(member.handle.ready.remote(), timeout=START_TIMEOUT_S)
        except GetTimeoutError as error:
            raise UnavailableError(
                f"{member.name} did not start within {START_TIMEOUT_S:g} s; see Ray's logs"
            ) from error
        except RayActorError as error:
            raise UnavailableError(f"{member.name} died while starting: {error}") from error
        if isinstance(answer, BatonError):
            raise answer
        assert isinstance(answer, kind), f"{member.name} answered {answer!r}"
        return answer


@contextlib.contextmanager
def start_ray(num_workers: int) -> Iterator[RayCluster]:
    """A Ray cluster of this process's own on this machine; leaving ends all its processes.

    Args:
        num_workers: how many worker processes must fit; may exceed the number of cores, which they then share.
    """
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    logging.getLogger("ray").setLevel(logging.ERROR)  # its start-up advice is not for people who run `baton serve`
    with no_leftovers():
        context = ray.init(
            address="local",
            namespace=NAMESPACE,
            num_cpus=max(num_workers, os.cpu_count() or 1),
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
        )
        cluster = RayCluster(Path(context.address_info["session_dir"]) / "logs")
        try:
            yield cluster
        finally:
            cluster.stop()


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
