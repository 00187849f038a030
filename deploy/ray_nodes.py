"""What is known of the machines of a Ray cluster, and killing processes on them."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from core.errors import ConfigError, UnavailableError
from core.processes import ProcessId, RankProcess
from deploy.processes import kill_processes
from deploy.ray_session import RaySession, first_line

TASK_TIMEOUT_S = 30.0  # Ray may have to start a process for a task first

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """A machine.

    Attributes:
        address: at which the others reach it.
        cores: ids of those that may be used.
    """

    address: str
    cores: tuple[int, ...]


def look_around(model_dir: Path) -> tuple[tuple[int, ...], bool]:
    """What can be found out on a machine only: cores that may be used, and whether the model folder is there."""
    return tuple(sorted(os.sched_getaffinity(0))), (model_dir / "config.json").is_file()


class RayNodes:
    """The machines of the cluster that a session is connected to.

    Args:
        session: Ray.
        model_dir: checkpoint folder, the same on each machine.
    """

    def __init__(self, session: RaySession, model_dir: Path) -> None:
        self._session = session
        self._model_dir = model_dir
        self._facts: dict[str, NodeFacts] = {}

    def facts(self, node: str) -> NodeFacts:
        """What is known of a machine; asked for once.

        Raises:
            ConfigError: Baton cannot run there, and why.
            UnavailableError: it does not answer.
        """
        if node not in self._facts:
            self._facts[node] = self._ask(node)
        return self._facts[node]

    def check(self, resource: str) -> list[NodeFacts]:
        """Makes sure that workers can run wherever they may be placed; returns all these machines.

        Args:
            resource: what a rank takes, `CPU` or `GPU`.

        Raises:
            ConfigError: they cannot on some machine, which is named.
            UnavailableError: a machine does not answer.
        """
        able = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get(resource, 0) >= 1]
        return [self.facts(node["NodeID"]) for node in able]

    def is_alive(self, node: str) -> bool:
        """Whether a machine is in the cluster, as far as Ray knows."""
        return any(each["NodeID"] == node and each["Alive"] for each in ray.nodes())

    def kill(self, ranks: Sequence[RankProcess]) -> bool:
        """Kills processes, each from its own machine; whether all of them are known to have ended.

        Ray's own way to kill an actor asks its process, which is of no use when that is stopped. What ran on a
        machine that has left the cluster, as Ray says, counts as ended.
        """
        by_node: dict[str, list[ProcessId]] = {}
        for rank in ranks:
            by_node.setdefault(rank.node, []).append(rank.process)
        here = by_node.pop(self._session.node, [])
        killing = [_on(node, kill_processes, found) for node, found in by_node.items() if self.is_alive(node)]
        are_dead = kill_processes(here)
        try:
            return all([are_dead, *ray.get(killing, timeout=TASK_TIMEOUT_S)])
        except RayError as error:  # a node does not answer: nobody knows what its processes do
            logger.warning("processes %s may still run: %s", ranks, first_line(error))
            return False

    def _ask(self, node: str) -> NodeFacts:
        address = self._address(node)
        if self._session.is_own:
            cores, has_model = look_around(self._model_dir)
        else:
            try:
                cores, has_model = ray.get(_on(node, look_around, self._model_dir), timeout=TASK_TIMEOUT_S)
            except RayError as error:
                raise UnavailableError(
                    f"node {address} runs no task of Baton ({first_line(error)}); install this version of Baton "
                    "there, for the Python that Ray runs with, or remove the node"
                ) from error
        if not has_model:
            raise ConfigError(
                f"node {address} has no model in {self._model_dir}; copy the folder there, or put it where all nodes "
                "see it under one path"
            )
        return NodeFacts(address, cores)

    def _address(self, node: str) -> str:
        if self._session.is_own:
            return self._session.host
        return str(next(each["NodeManagerAddress"] for each in ray.nodes() if each["NodeID"] == node))


def _on(node: str, call: Callable[..., Any], argument: object) -> Any:  # noqa: ANN401 - Ray's
    """A task on a machine."""
    strategy = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(call).options(num_cpus=0, scheduling_strategy=strategy).remote(argument)
