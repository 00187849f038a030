"""What is made of an actor's answer; the actors themselves run in `tests/cluster`."""

from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import GetTimeoutError

from core.errors import CheckpointError
from core.processes import ProcessId, RankProcess
from deploy import ray_cluster
from deploy.ray_cluster import Member, RayCluster, answer_of


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (Member("decode-0", None), "the file is gone"),
        (Member("rank 1 of decode-0", None, is_of_several=True), "rank 1 of decode-0: the file is gone"),
    ],
)
def test_error_at_the_start_keeps_its_type_and_says_which_rank(
    member: Member, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster.ray, "get", lambda _call, **_options: CheckpointError("the file is gone"))
    with pytest.raises(CheckpointError) as caught:
        answer_of(member, None, timeout_s=1.0)
    assert caught.value.message == message


A, B = "a" * 56, "b" * 56  # ids of nodes, as Ray writes them


class Nodes:
    """The part of Ray that runs tasks on nodes: notes which, and answers as the test says."""

    def __init__(self, answers: dict[str, bool]) -> None:
        self._answers = answers
        self.tasks: list[tuple[str, list[ProcessId]]] = []

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

    def get(self, calls: list[str], timeout: float) -> list[bool]:
        if not all(node in self._answers for node in calls):
            raise GetTimeoutError(f"no answer within {timeout} s")
        return [self._answers[node] for node in calls]


@pytest.mark.parametrize(
    ("answers", "is_dead"), [({A: True, B: True}, True), ({A: True, B: False}, False), ({A: True}, False)]
)
def test_ranks_are_killed_on_their_own_nodes_and_dead_when_every_node_says_so(
    monkeypatch: pytest.MonkeyPatch, answers: dict[str, bool], *, is_dead: bool
) -> None:
    nodes = Nodes(answers)
    monkeypatch.setattr(ray_cluster, "ray", nodes)
    ids = [ProcessId(pid, 1.0) for pid in (7, 8, 9)]
    ranks = [RankProcess(node, process) for node, process in zip([A, B, A], ids, strict=True)]
    assert RayCluster(Path()).kill(ranks) == is_dead
    assert nodes.tasks == [(A, [ids[0], ids[2]]), (B, [ids[1]])]
