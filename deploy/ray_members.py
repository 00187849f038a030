"""Routers and workers as Ray's actors: how each of them is started. Implements `deploy.keeper.Member`."""

import time
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from core.errors import BatonError, ConfigError, UnavailableError
from core.members import MemberKind, MemberState
from deploy.actors import RankActor, RouterActor
from deploy.cores import Seat
from deploy.keeper import Sight
from deploy.ray_actors import Actor, ActorGroup
from deploy.ray_nodes import NodeFacts, RayNodes
from deploy.ray_session import RaySession
from router.config import RouterConfig
from worker.config import WorkerConfig

PLACEMENT_TIMEOUT_S = 30.0  # an infeasible placement group waits for ever
PLACED_POLL_S = 0.05
LEADER_TIMEOUT_S = 60.0  # for rank 0 of a worker to come up
LEADER_RETRY_S = 0.2
ACTOR_CALLS = 5  # of one actor at once: process, ready, run, stop, store_address


class RayRouter:
    """A router, always on this machine.

    Args:
        name: of the member.
        config: of the router, with a cluster port that it has after every start.
        session: Ray.
        nodes: its machines.
    """

    kind = MemberKind.ROUTER

    def __init__(self, name: str, config: RouterConfig, session: RaySession, nodes: RayNodes) -> None:
        self.name = name
        self._config = config
        self._session = session
        self._nodes = nodes
        self._actors: ActorGroup | None = None
        self._num_starts = 0

    def start(self) -> None:
        """See `Member.start`."""
        self._num_starts += 1
        here = NodeAffinitySchedulingStrategy(self._session.node, soft=False)
        options = actor_options(self.name, self._num_starts, self._session)
        remote = ray.remote(RouterActor).options(num_cpus=0, scheduling_strategy=here, **options)
        actor = Actor(self.name, remote.remote(self._config, self.name, self._session.node))
        self._actors = ActorGroup([actor], self._session, self._nodes, cluster_address(self._config))

    def look(self) -> Sight:
        """See `Member.look`."""
        assert self._actors is not None, f"{self.name} was started"
        return self._actors.look()

    def end(self) -> bool:
        """See `Member.end`."""
        return self._actors is None or self._actors.end()

    def stop(self) -> None:
        """See `Member.stop`."""
        if self._actors is not None:
            self._actors.stop()


class RayWorker:
    """A worker: all its ranks in a placement group of their own, on one machine.

    When that machine has left the cluster, the worker goes to another one with room, or waits until there is one; for
    its first start, which somebody waits for, not for ever.

    Args:
        config: of its rank 0; machine, cores and address are chosen when it is placed.
        session: Ray.
        nodes: its machines.
    """

    kind = MemberKind.WORKER

    def __init__(self, config: WorkerConfig, session: RaySession, nodes: RayNodes) -> None:
        self._config = config
        self._session = session
        self._nodes = nodes
        self._room = Room(config)
        self._seat: Seat | None = None
        self._actors: ActorGroup | None = None
        self._num_starts = 0
        self._started_s = 0.0
        self._next_incarnation = 0

    @property
    def name(self) -> str:
        """See `Member.name`."""
        return self._config.name

    def wait_placed(self) -> str:
        """Waits until there is room for it; returns the machine.

        Raises:
            ConfigError: there is none.
        """
        return self._room.wait()

    def take_seat(self, seat: Seat) -> None:
        """Which share of a machine's cores it gets, on whatever machine. Before its first start."""
        self._seat = seat

    def start(self) -> None:
        """See `Member.start`."""
        self._num_starts += 1
        self._started_s = time.monotonic()
        self._actors = None

    def look(self) -> Sight:
        """See `Member.look`."""
        if self._actors is None:
            if (node := self._room.node()) is None:
                is_first = self._num_starts == 1
                is_over = is_first and time.monotonic() - self._started_s > PLACEMENT_TIMEOUT_S
                return Sight(
                    MemberState.ENDING if is_over else MemberState.STARTING, UnavailableError(self._room.lack())
                )
            try:
                self._actors = self._start_on(node)
            except BatonError as error:
                return Sight(MemberState.ENDING, error)
        sight = self._actors.look()
        if sight.worker is not None:
            self._next_incarnation = sight.worker.incarnation + 1
        return sight

    def end(self) -> bool:
        """See `Member.end`."""
        if self._actors is not None and not self._actors.end():
            return False
        if (node := self._room.node()) is None or not self._nodes.is_alive(node):
            self._room.close()
            self._room = Room(self._config)
        return True

    def stop(self) -> None:
        """See `Member.stop`."""
        if self._actors is not None:
            self._actors.stop()
        self._room.close()

    def _start_on(self, node: str) -> ActorGroup:
        """Starts all ranks.

        Raises:
            BatonError: Baton cannot run on the machine.
        """
        facts = self._nodes.facts(node)
        assert self._seat is not None, f"{self.name} has a seat"
        placed = replace(self._config, node=node, min_incarnation=self._next_incarnation)
        actors: list[Actor] = []
        for config in rank_settings(placed, facts, self._seat):
            host = RayActorHost(self.name, actors[0].handle if actors else None)
            actors.append(Actor(config.rank_name, self._start_rank(config, host)))
        return ActorGroup(actors, self._session, self._nodes)

    def _start_rank(self, config: WorkerConfig, host: "RayActorHost") -> Any:  # noqa: ANN401 - Ray's
        name = config.name if config.rank == 0 else f"{config.name}/{config.rank}"
        needs = {"num_gpus": 1, "num_cpus": 0} if resource_of(config) == "GPU" else {"num_cpus": 1}
        options = actor_options(name, self._num_starts, self._session)
        remote = ray.remote(RankActor).options(scheduling_strategy=self._room.bundle(config.rank), **needs, **options)
        return remote.remote(config, host)


class Room:
    """A placement group for the ranks of one worker.

    Args:
        config: of the worker.
    """

    def __init__(self, config: WorkerConfig) -> None:
        self._name = config.name
        self._resource = resource_of(config)
        self._num_ranks = config.topology.world_size
        bundles = [{self._resource: 1} for _ in range(self._num_ranks)]
        self._group = placement_group(bundles, strategy="STRICT_PACK", name=config.name)

    def node(self) -> str | None:
        """The machine it is on; None while there is none."""
        table = placement_group_table(self._group)
        return str(table["bundles_to_node_id"][0]) if table["state"] == "CREATED" else None

    def wait(self) -> str:
        """Waits for a machine.

        Raises:
            ConfigError: none has room.
        """
        deadline_s = time.monotonic() + PLACEMENT_TIMEOUT_S
        while (node := self.node()) is None:
            if time.monotonic() > deadline_s:
                total = ray.cluster_resources().get(self._resource, 0)
                raise ConfigError(
                    f"{self.lack()} within {PLACEMENT_TIMEOUT_S:g} s; the cluster has {total:g} in all: lower "
                    "--prefill or --decode, or add a node"
                )
            time.sleep(PLACED_POLL_S)
        return node

    def lack(self) -> str:
        """That there is no machine for it."""
        needs = f"{self._num_ranks} {self._resource}"
        return f"no node of the Ray cluster has room for worker {self._name}, which needs {needs}"

    def bundle(self, rank: int) -> PlacementGroupSchedulingStrategy:
        """Where one rank goes."""
        return PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=rank)

    def close(self) -> None:
        """Gives the room back."""
        remove_placement_group(self._group)


@dataclass(frozen=True, slots=True)
class RayActorHost:
    """Implements `deploy.actors.ActorHost` inside a rank's actor.

    Attributes:
        worker: the worker's name.
        leader: the actor that is rank 0; None inside that one.
    """

    worker: str
    leader: Any

    def node(self) -> str:
        """See `ActorHost.node`."""
        return str(ray.get_runtime_context().get_node_id())

    def leader_store_address(self) -> str:
        """See `ActorHost.leader_store_address`."""
        deadline_s = time.monotonic() + LEADER_TIMEOUT_S
        while True:
            try:
                return str(ray.get(self.leader.store_address.remote(), timeout=LEADER_TIMEOUT_S))
            except (GetTimeoutError, RayActorError, RayTaskError) as error:  # it is not so far yet, or dying
                if time.monotonic() > deadline_s:
                    raise UnavailableError(f"rank 0 of {self.worker} did not come up: {error}") from error
            time.sleep(LEADER_RETRY_S)


def rank_settings(worker: WorkerConfig, node: NodeFacts, seat: Seat) -> list[WorkerConfig]:
    """The settings of all ranks of a worker, rank 0 first.

    Args:
        worker: what they have in common, but for what depends on the machine.
        node: the machine.
        seat: the worker's share of its cores.
    """
    return [
        replace(worker, host=node.address, rank=rank, cpu_ids=seat.cores(rank, node.cores))
        for rank in range(worker.topology.world_size)
    ]


def cluster_address(config: RouterConfig) -> str:
    """Where workers and their supervisor reach a router."""
    return f"{config.cluster_host}:{config.cluster_port}"


def resource_of(config: WorkerConfig) -> str:
    """What each rank of a worker takes of a machine, by Ray's name."""
    return "GPU" if config.device == "cuda" else "CPU"


def actor_options(name: str, num_starts: int, session: RaySession) -> dict[str, Any]:
    """What all actors have in common. Ray starts none of them again: `deploy.keeper` does."""
    return {
        "name": f"{name}.{num_starts}",
        "namespace": session.namespace,
        "max_restarts": 0,
        "max_concurrency": ACTOR_CALLS,
    }
