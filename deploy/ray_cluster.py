"""All calls to Ray. Ray owns the lifecycle of processes; no token, prompt or KV byte passes through it."""

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from core.errors import BatonError, ConfigError, UnavailableError
from core.ids import WorkerEndpoint
from core.processes import ProcessId, RankProcess
from deploy.actors import RankActor, RouterActor
from deploy.processes import kill_processes, wait_ended
from router.config import RouterConfig
from router.process import RouterAddresses
from worker.config import WorkerConfig

NAMESPACE = "baton"
OBJECT_STORE_BYTES = 128 * 1024 * 1024  # hardly used; a much smaller store made start-up fail on a loaded machine
PLACEMENT_TIMEOUT_S = 30.0  # an infeasible placement group waits for ever
LEADER_TIMEOUT_S = 60.0  # for rank 0 of a worker to come up, again when its whole worker died
LEADER_RETRY_S = 0.2
START_TIMEOUT_S = 600.0  # a large checkpoint from a slow disk
STOP_TIMEOUT_S = 15.0
KILL_TASK_TIMEOUT_S = 30.0  # Ray may have to start a process for the task first
LEFTOVER_TIMEOUT_S = 10.0  # for processes that Ray has told to end
HALF_STARTED_TIMEOUT_S = 1.0  # for those of a Ray that was interrupted while it started: nobody tells all of them
RANK_CALLS = 3  # of one rank at once: ready, store_address, stop
MAX_RESTARTS = 100  # of one actor; each comes back as a new incarnation

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # leaves device variables alone on machines without devices
    "RAY_DEDUP_LOGS": "0",
}

logger = logging.getLogger(__name__)

Started = TypeVar("Started")


@dataclass(frozen=True, slots=True)
class Member:
    """An actor of the cluster.

    Attributes:
        name: the rank's name, or `router`.
        handle: Ray's.
        is_of_several: whether its worker has other ranks.
    """

    name: str
    handle: Any
    is_of_several: bool = False


@dataclass(frozen=True, slots=True)
class StartedWorker:
    """A worker that has been started.

    Attributes:
        name: the worker's name.
        ranks: an actor each, rank 0 first.
    """

    name: str
    ranks: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class RayActorHost:
    """Implements `deploy.actors.ActorHost` inside an actor.

    Attributes:
        leader: name of the actor that is rank 0.
    """

    leader: str

    def is_restarted(self) -> bool:
        """See `ActorHost.is_restarted`."""
        return bool(ray.get_runtime_context().was_current_actor_reconstructed)

    def node(self) -> str:
        """See `ActorHost.node`."""
        return str(ray.get_runtime_context().get_node_id())

    def leader_store_address(self) -> str:
        """See `ActorHost.leader_store_address`."""
        deadline_s = time.monotonic() + LEADER_TIMEOUT_S
        while True:
            try:
                leader = ray.get_actor(self.leader, namespace=NAMESPACE)
                return str(ray.get(leader.store_address.remote(), timeout=LEADER_TIMEOUT_S))
            except (ValueError, GetTimeoutError, RayActorError, RayTaskError) as error:  # not there yet, or dying
                if time.monotonic() > deadline_s:
                    raise UnavailableError(f"rank 0 of {self.leader} did not come up: {error}") from error
            time.sleep(LEADER_RETRY_S)


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

    def start_worker(self, ranks: Sequence[WorkerConfig]) -> StartedWorker:
        """Starts all ranks of a worker in a placement group of its own; `wait_worker` says when it serves.

        Raises:
            ConfigError: the cluster has no room for it.
        """
        name = ranks[0].name
        resource = "GPU" if ranks[0].device == "cuda" else "CPU"
        group = placement_group([{resource: 1} for _ in ranks], strategy="STRICT_PACK", name=name)
        if not group.wait(PLACEMENT_TIMEOUT_S):
            raise ConfigError(
                f"Ray found no {len(ranks)} {resource} for worker {name} within {PLACEMENT_TIMEOUT_S:g} s; "
                f"the cluster has {ray.cluster_resources().get(resource, 0):g}"
            )
        options = {
            "num_cpus": int(resource == "CPU"),
            "num_gpus": int(resource == "GPU"),
            "max_restarts": MAX_RESTARTS,
            "max_concurrency": RANK_CALLS,
        }
        members = []
        for config in ranks:
            bundle = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=config.rank)
            actor_name = name if config.rank == 0 else f"{name}/{config.rank}"
            remote = ray.remote(RankActor).options(name=actor_name, scheduling_strategy=bundle, **options)
            handle = remote.remote(config, RayActorHost(leader=name))
            members.append(self._add(config.rank_name, handle, is_of_several=len(ranks) > 1))
        return StartedWorker(name, tuple(members))

    def wait_router(self, member: Member) -> RouterAddresses:
        """Waits until a router listens. Raises what kept it from starting."""
        return self._wait(member, RouterAddresses)

    def wait_worker(self, worker: StartedWorker) -> WorkerEndpoint:
        """Waits until all ranks of a worker serve. Raises what kept the first that failed from starting."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        waiting = {member.handle.ready.remote(): member for member in worker.ranks}
        answers = []
        while waiting:
            done, _ = ray.wait(list(waiting), timeout=START_TIMEOUT_S)
            call = next(iter(done or waiting))
            answers.append(answer_of(waiting.pop(call), call, max(0.0, deadline_s - time.monotonic())))
        (endpoint,) = [answer for answer in answers if answer is not None]
        assert isinstance(endpoint, WorkerEndpoint), f"rank 0 of {worker.name} answered {endpoint!r}"
        return endpoint

    def kill(self, ranks: Sequence[RankProcess]) -> bool:
        """Kills processes of ranks, each from a task on its own node; whether all of them are known to have ended.

        Ray's own way to kill an actor asks its process, which is of no use when that is stopped.
        """
        by_node: dict[str, list[ProcessId]] = {}
        for rank in ranks:
            by_node.setdefault(rank.node, []).append(rank.process)
        killing = [
            ray.remote(kill_processes)
            .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
            .remote(processes)
            for node, processes in by_node.items()
        ]
        try:
            return all(ray.get(killing, timeout=KILL_TASK_TIMEOUT_S))
        except RayError as error:  # the node is gone or does not answer: nobody knows what its processes do
            logger.warning("processes %s may still run: %s", ranks, error)
            return False

    def stop(self) -> None:
        """Stops all actors, the router first; bounded in time."""
        for member in self._members:
            with contextlib.suppress(GetTimeoutError, RayActorError):
                ray.get(member.handle.stop.remote(), timeout=STOP_TIMEOUT_S)
        self._members.clear()

    def _add(self, name: str, handle: Any, *, is_of_several: bool = False) -> Member:  # noqa: ANN401 - Ray's
        member = Member(name, handle, is_of_several)
        self._members.append(member)
        return member

    @staticmethod
    def _wait(member: Member, kind: type[Started]) -> Started:
        answer = answer_of(member, member.handle.ready.remote(), START_TIMEOUT_S)
        assert isinstance(answer, kind), f"{member.name} answered {answer!r}"
        return answer


def answer_of(member: Member, call: Any, timeout_s: float) -> Any:  # noqa: ANN401 - whatever the call returns
    """The answer to a call of `ready`. Raises what kept the actor from starting; of several ranks, it says which."""
    try:
        answer = ray.get(call, timeout=timeout_s)
    except GetTimeoutError as error:
        raise UnavailableError(f"{member.name} did not start within {START_TIMEOUT_S:g} s; see Ray's logs") from error
    except RayActorError as error:
        raise UnavailableError(f"{member.name} died while starting: {error}") from error
    if isinstance(answer, BatonError):
        raise type(answer)(f"{member.name}: {answer.message}") if member.is_of_several else answer
    return answer


@contextlib.contextmanager
def start_ray(num_ranks: int) -> Iterator[RayCluster]:
    """A Ray cluster of this process's own on this machine; leaving ends all its processes.

    Args:
        num_ranks: how many ranks of workers must fit; may exceed the number of cores, which they then share.
    """
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    logging.getLogger("ray").setLevel(logging.ERROR)  # its start-up advice is not for people who run `baton serve`
    with no_leftovers():
        context = ray.init(
            address="local",
            namespace=NAMESPACE,
            num_cpus=max(num_ranks, os.cpu_count() or 1),
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
