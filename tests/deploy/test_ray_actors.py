"""What is made of the answers of actors; the actors themselves run in `tests/cluster`."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError

from core.errors import CheckpointError
from core.ids import WorkerEndpoint, WorkerId
from core.members import MemberState
from core.processes import ProcessId, RankProcess
from deploy import ray_actors
from deploy.ray_actors import Actor, ActorGroup, cause_of
from deploy.ray_nodes import RayNodes
from deploy.ray_session import RaySession

DEATH = """The actor died unexpectedly before finishing this task.
	class_name: RankActor
	pid: 15280
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR and so on."""
PENDING = object()


def rank_process(pid: int) -> RankProcess:
    return RankProcess("n", ProcessId(pid, 1.0))


@dataclass
class Handle:
    """An actor whose calls end as the test says; all of them are their own answers."""

    pid: int
    answers: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.answers = {"process": rank_process(self.pid), "ready": PENDING, "run": PENDING, **self.answers}

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - a method, as Ray makes them
        if name not in ("process", "ready", "run", "stop"):
            raise AttributeError(name)
        return type("Method", (), {"remote": lambda _: (self, name)})()


class FakeRay:
    """The part of Ray that waits for calls and kills actors."""

    def __init__(self) -> None:
        self.killed: list[Handle] = []

    @staticmethod
    def wait(calls: list[tuple[Handle, str]], timeout: float) -> tuple[list[Any], list[Any]]:
        assert timeout == 0
        ended = [call for call in calls if call[0].answers[call[1]] is not PENDING]
        return ended, [call for call in calls if call not in ended]

    @staticmethod
    def get(call: tuple[Handle, str], timeout: float | None = None) -> Any:  # noqa: ANN401 - any answer
        assert (timeout is not None) == (call[1] == "stop"), "only answers that are there are waited for without end"
        answer = call[0].answers[call[1]]
        if isinstance(answer, RayError):
            raise answer
        return answer

    def kill(self, handle: Handle) -> None:
        self.killed.append(handle)


SESSION = RaySession("baton-1", "n", "127.0.0.1", Path("/logs"), is_own=True)


class Killing(RayNodes):
    """Machines whose processes die, or not."""

    def __init__(self) -> None:
        super().__init__(SESSION, Path())
        self.can_kill = True
        self.killed: list[RankProcess] = []

    def kill(self, ranks: Any) -> bool:  # noqa: ANN401 - any sequence
        self.killed.extend(ranks)
        return self.can_kill


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setattr(ray_actors, "ray", fake)
    return fake


def group(*handles: Handle, nodes: RayNodes | None = None, session: RaySession = SESSION) -> ActorGroup:
    names = ["decode-0"] if len(handles) == 1 else [f"rank {number} of decode-0" for number in range(len(handles))]
    actors = [Actor(name, handle) for name, handle in zip(names, handles, strict=True)]
    return ActorGroup(actors, session, nodes or Killing())


@pytest.mark.usefixtures("ray")
def test_group_runs_when_all_ranks_do() -> None:
    leader, other = Handle(1), Handle(2)
    actors = group(leader, other)
    assert actors.look().state is MemberState.STARTING
    endpoint = WorkerEndpoint(WorkerId("decode-0", 5), "127.0.0.1:9")
    leader.answers["ready"] = endpoint
    assert actors.look().state is MemberState.STARTING
    other.answers["ready"] = None
    sight = actors.look()
    assert (sight.state, sight.address, sight.worker) == (MemberState.RUNNING, endpoint.address, endpoint.worker)
    assert sight.processes == (rank_process(1), rank_process(2))


@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize(
    ("handles", "message"),
    [
        ([Handle(1, {"ready": CheckpointError("the file is gone")})], "the file is gone"),
        (
            [Handle(1), Handle(2, {"ready": CheckpointError("the file is gone")})],
            "rank 1 of decode-0: the file is gone",
        ),
    ],
)
def test_error_at_the_start_keeps_its_type_and_says_which_rank(handles: list[Handle], message: str) -> None:
    sight = group(*handles).look()
    assert sight.state is MemberState.ENDING
    assert isinstance(sight.error, CheckpointError)
    assert sight.error.message == message


@pytest.mark.usefixtures("ray")
def test_group_runs_when_the_processes_of_all_ranks_are_known() -> None:
    leader, other = Handle(1, {"ready": WorkerEndpoint(WorkerId("decode-0", 5), "h:9")}), Handle(2, {"ready": None})
    other.answers["process"] = ActorUnavailableError("the connection broke", b"0" * 16)
    actors = group(leader, other)
    assert actors.look().state is MemberState.STARTING
    other.answers["process"] = rank_process(2)
    assert actors.look().processes == (rank_process(1), rank_process(2))


@pytest.mark.usefixtures("ray")
def test_death_of_one_rank_is_that_of_the_worker() -> None:
    leader, other = Handle(1, {"ready": WorkerEndpoint(WorkerId("decode-0", 5), "h:9")}), Handle(2, {"ready": None})
    actors = group(leader, other)
    assert actors.look().state is MemberState.RUNNING
    other.answers["run"] = RayError(DEATH)
    sight = actors.look()
    assert sight.state is MemberState.ENDING
    assert str(sight.error) == "rank 1 of decode-0 died: its worker process has died; see the logs in /logs"


@pytest.mark.usefixtures("ray")
def test_broken_connection_is_no_death() -> None:
    handle = Handle(1, {"run": ActorUnavailableError("the connection broke", b"0" * 16)})
    assert group(handle).look().state is MemberState.STARTING


def test_group_has_ended_when_its_processes_have(ray: FakeRay) -> None:
    nodes, handle = Killing(), Handle(1, {"run": ActorDiedError()})
    actors = group(handle, nodes=nodes)
    nodes.can_kill = False
    assert not actors.end()
    nodes.can_kill = True
    assert actors.end()
    assert nodes.killed == [rank_process(1)] * 2
    assert ray.killed == [handle] * 2


@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize("is_own", [True, False])
def test_processes_in_a_ray_that_goes_on_are_ended_one_by_one(*, is_own: bool) -> None:
    nodes = Killing()
    handle = Handle(1, {"stop": None, "run": ActorDiedError()})
    group(handle, nodes=nodes, session=replace(SESSION, is_own=is_own)).stop()
    assert nodes.killed == ([] if is_own else [rank_process(1)])


@pytest.mark.usefixtures("ray")
def test_actor_that_never_said_which_process_it_is_has_ended_when_ray_says_so() -> None:
    handle = Handle(1, {"process": PENDING})
    actors = group(handle)
    assert not actors.end()
    handle.answers.update(process=ActorDiedError(), run=ActorDiedError())
    assert actors.end()


def test_cause_of_death_is_one_clause() -> None:
    assert cause_of(RayError(DEATH)) == "its worker process has died"
    assert cause_of(RayError("\n  it is gone  \nand more")) == "it is gone"
