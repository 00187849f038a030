"""Killing on machines, and what is asked of them; the tasks themselves run in `tests/cluster`."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray.exceptions import GetTimeoutError, RayTaskError

from core.errors import ConfigError, UnavailableError
from core.processes import ProcessId, RankProcess, started_after_boot_s
from deploy import ray_nodes
from deploy.ray_nodes import RayNodes, look_around
from deploy.ray_session import RaySession

HERE, A, B = "0" * 56, "a" * 56, "b" * 56  # ids of nodes, as Ray writes them
MODEL = Path("/models/m")


class Nodes:
    """The part of Ray that runs tasks on nodes: notes which, and answers as the test says."""

    def __init__(self, answers: dict[str, Any], dead: str = "") -> None:
        self._answers = answers
        self._dead = dead
        self.tasks: list[tuple[str, Any]] = []

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {"NodeID": node, "Alive": node != self._dead, "NodeManagerAddress": f"10.0.0.{number}", "Resources": {}}
            | {"Resources": {"CPU": 1.0} if node != HERE else {}}
            for number, node in enumerate((HERE, A, B))
        ]

    def remote(self, *arguments: Any) -> Any:  # noqa: ANN401 - a task, a handle or its call, as in Ray
        (argument,) = arguments
        if callable(argument):
            return self
        self.tasks.append((self._node, argument))
        return self._node

    def options(self, *, num_cpus: int, scheduling_strategy: Any) -> "Nodes":  # noqa: ANN401 - Ray's
        assert (num_cpus, scheduling_strategy.soft) == (0, False)
        self._node = scheduling_strategy.node_id
        return self

    def get(self, calls: str | list[str], timeout: float) -> Any:  # noqa: ANN401 - the answer, or a list
        asked = [calls] if isinstance(calls, str) else calls
        if not all(node in self._answers for node in asked):
            raise GetTimeoutError(f"no answer within {timeout} s")
        answers = [self._answers[node] for node in asked]
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers[0] if isinstance(calls, str) else answers


def nodes_of(monkeypatch: pytest.MonkeyPatch, nodes: Nodes, *, is_own: bool = False) -> RayNodes:
    monkeypatch.setattr(ray_nodes, "ray", nodes)
    return RayNodes(RaySession("baton-1", HERE, "127.0.0.1", Path(), is_own), MODEL)


@pytest.mark.parametrize(
    ("answers", "is_dead"), [({A: True, B: True}, True), ({A: True, B: False}, False), ({A: True}, False)]
)
def test_ranks_are_killed_on_their_own_nodes_and_dead_when_every_node_says_so(
    monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any], *, is_dead: bool
) -> None:
    ray = Nodes(answers)
    ids = [ProcessId(pid, 1.0) for pid in (7, 8, 9)]
    ranks = [RankProcess(node, process) for node, process in zip([A, B, A], ids, strict=True)]
    assert nodes_of(monkeypatch, ray).kill(ranks) == is_dead
    assert ray.tasks == [(A, [ids[0], ids[2]]), (B, [ids[1]])]


def test_what_ran_on_a_node_that_has_left_is_dead_and_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = Nodes({}, dead=A)
    assert nodes_of(monkeypatch, ray).kill([RankProcess(A, ProcessId(7, 1.0))])
    assert ray.tasks == []


@pytest.fixture
def sleeper() -> Iterator[psutil.Process]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield psutil.Process(process.pid)
        process.kill()


def test_process_of_this_machine_is_killed_without_a_task(
    monkeypatch: pytest.MonkeyPatch, sleeper: psutil.Process
) -> None:
    ray = Nodes({})
    rank = RankProcess(HERE, ProcessId(sleeper.pid, started_after_boot_s(sleeper)))
    assert nodes_of(monkeypatch, ray).kill([rank])
    assert ray.tasks == []
    assert sleeper.wait() == -9


def test_node_without_the_model_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = nodes_of(monkeypatch, Nodes({A: ((0, 1), True), B: ((0, 1), False)}))
    assert (nodes.facts(A).address, nodes.facts(A).cores) == ("10.0.0.1", (0, 1))
    with pytest.raises(ConfigError, match=r"^node 10\.0\.0\.2 has no model in /models/m; copy the folder there"):
        nodes.check("CPU")


def test_node_that_cannot_import_baton_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    error = RayTaskError("look_around", "\nModuleNotFoundError: No module named 'deploy'\n  more", ImportError())
    nodes = nodes_of(monkeypatch, Nodes({A: error}))
    with pytest.raises(UnavailableError, match=r"^node 10\.0\.0\.1 runs no task of Baton .*install this version"):
        nodes.facts(A)


def test_node_without_what_ranks_need_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = Nodes({})
    nodes_of(monkeypatch, ray).check("GPU")
    assert ray.tasks == []


def test_model_folder_is_there_with_its_configuration(tmp_path: Path) -> None:
    assert not look_around(tmp_path)[1]
    (tmp_path / "config.json").touch()
    cores, has_model = look_around(tmp_path)
    assert has_model
    assert cores
