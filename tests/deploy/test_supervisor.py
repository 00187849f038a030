"""Whom the supervisor kills, and whom it then reports dead."""

import threading
from collections.abc import Sequence

import pytest

from core.clock import SystemClock
from core.errors import InvalidRequestError, UnavailableError
from core.ids import WorkerId
from core.processes import ProcessId, RankProcess
from deploy import supervisor
from deploy.keeper import Keeper
from deploy.keeping import keeping
from deploy.supervisor import Supervisor

HANG_TIMEOUT_S = 15.0
OLD, NEW, OTHER = WorkerId("p", 1), WorkerId("p", 2), WorkerId("d", 1)
WAIT_S = 20.0


def processes(*pids: int) -> tuple[RankProcess, ...]:
    return tuple(RankProcess("node-1", ProcessId(pid, 1.0)) for pid in pids)


class Machine:
    """A router that hears what the test says it hears, and processes that die unless told not to."""

    def __init__(self, *silent: dict[WorkerId, tuple[RankProcess, ...]]) -> None:
        self.silent = list(silent)
        self.killed: list[Sequence[RankProcess]] = []
        self.gone: list[WorkerId] = []
        self.can_kill = True
        self.unknown: WorkerId | None = None
        self.looks = threading.Semaphore(0)

    def silent_workers(self, for_s: float) -> dict[WorkerId, tuple[RankProcess, ...]]:
        assert for_s == HANG_TIMEOUT_S
        self.looks.release()
        if not self.silent:
            raise UnavailableError("the router does not answer")
        return self.silent.pop(0)

    def worker_gone(self, worker: WorkerId) -> None:
        if worker == self.unknown:
            raise InvalidRequestError(f"worker {worker} is not known")
        self.gone.append(worker)

    def kill(self, ranks: Sequence[RankProcess]) -> bool:
        self.killed.append(ranks)
        return self.can_kill

    def supervisor(self) -> Supervisor:
        return Supervisor(self, self.kill, HANG_TIMEOUT_S)


def test_worker_silent_at_two_looks_is_killed_with_all_its_ranks_and_reported() -> None:
    machine = Machine(*[{OLD: processes(7, 8)}] * 3, {})
    watching = machine.supervisor()
    watching.look()
    assert machine.killed == []
    watching.look()
    watching.look()
    assert machine.killed == [processes(7, 8)]
    assert machine.gone == [OLD]


def test_worker_that_is_heard_again_before_the_second_look_lives() -> None:
    machine = Machine({OLD: processes(7)}, {}, {OLD: processes(7)}, {OTHER: processes(9)})
    watching = machine.supervisor()
    for _ in range(4):
        watching.look()
    assert machine.killed == []


def test_worker_that_came_back_as_another_incarnation_is_not_killed_for_its_predecessor() -> None:
    machine = Machine({OLD: processes(7)}, {NEW: processes(8)})
    watching = machine.supervisor()
    watching.look()
    watching.look()
    assert machine.killed == []


def test_worker_that_could_not_be_killed_is_not_reported_and_tried_again() -> None:
    machine = Machine(*[{OLD: processes(7)}] * 5)
    watching = machine.supervisor()
    machine.can_kill = False
    watching.look()
    watching.look()
    assert machine.gone == []
    machine.can_kill = True
    watching.look()
    assert machine.killed == [processes(7)] * 2
    assert machine.gone == [OLD]


def test_router_that_knows_better_about_one_worker_hears_of_the_others() -> None:
    both = {OTHER: processes(9), OLD: processes(7)}
    machine = Machine(*[both] * 4)
    machine.unknown = OTHER
    watching = machine.supervisor()
    watching.look()
    watching.look()
    assert machine.killed == [processes(9), processes(7)]
    assert machine.gone == [OLD]


def test_worker_that_is_heard_again_while_another_is_killed_lives() -> None:
    both = {OTHER: processes(9), OLD: processes(7)}
    machine = Machine(both, both, both, {OTHER: processes(9)})
    watching = machine.supervisor()
    watching.look()
    watching.look()
    assert machine.killed == [processes(9)]
    assert machine.silent == []


def test_silence_before_a_look_without_an_answer_is_forgotten() -> None:
    machine = Machine({OLD: processes(7)})
    watching = machine.supervisor()
    watching.look()
    with pytest.raises(UnavailableError):
        watching.look()
    machine.silent = [{OLD: processes(7)}] * 3
    watching.look()
    assert machine.killed == []
    watching.look()
    assert machine.killed == [processes(7)]


def test_nobody_else_is_killed_once_the_cluster_stops() -> None:
    both = {OTHER: processes(9), OLD: processes(7)}
    machine = Machine(*[both] * 4)

    def kill(ranks: Sequence[RankProcess]) -> bool:
        with watching.running():
            return machine.kill(ranks)

    watching = Supervisor(machine, kill, HANG_TIMEOUT_S)
    watching.look()
    watching.look()
    assert machine.killed == [processes(9)]


def test_supervisor_outlives_a_router_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LOOK_S", 0.001)
    machine = Machine()
    with machine.supervisor().running():
        for _ in range(3):
            assert machine.looks.acquire(timeout=WAIT_S)
    assert not any(thread.name == "supervisor" for thread in threading.enumerate())


def test_timeout_of_zero_kills_nobody() -> None:
    keeper = Keeper([], pytest.fail, SystemClock())
    with keeping(keeper, pytest.fail, 0.0):
        assert not any(thread.name == "supervisor" for thread in threading.enumerate())
