"""Faults, of real processes that do nothing else."""

import os
from collections.abc import Iterator

import psutil
import pytest

from core.errors import InvalidRequestError
from core.processes import ProcessId, started_after_boot_s
from core.request import Role
from deploy.bench.chaos import victims, wind
from deploy.bench.chaos.victims import ClusterVictims, order_role, statuses
from deploy.bench.chaos.wind import ROLES, Fault, Force, Processes, Wind
from deploy.cluster_processes import listeners
from deploy.processes import wait_ended
from tests.deploy.fake_router import running_router, step, worker_status
from tests.deploy.idle_process import LISTEN, started

WAIT_S = 30.0
NO_TIME = Force(calm_s=(0.0, 0.0), stopped_s=(0.0, 0.0))


@pytest.fixture
def process() -> Iterator[psutil.Process]:
    with started() as child:
        yield psutil.Process(child.pid)


class FakeVictims:
    """One worker, or one router, of one process."""

    def __init__(self, process: psutil.Process, *, is_router: bool = False, is_watched: bool = True) -> None:
        self._found = [ProcessId(process.pid, started_after_boot_s(process))]
        self._is_router = is_router
        self._is_watched = is_watched
        self.takes_flips = True
        self.flips: list[tuple[str, Role]] = []

    def workers(self) -> Processes:
        return {} if self._is_router else {"decode-0": self._found}

    def routers(self) -> Processes:
        return {"router-0": self._found} if self._is_router else {}

    def is_watched(self, worker: str) -> bool:
        assert worker == "decode-0"
        return self._is_watched

    def flip(self, worker: str, role: Role) -> bool:
        self.flips.append((worker, role))
        return self.takes_flips


def gust(monkeypatch: pytest.MonkeyPatch, found: FakeVictims, fault: Fault) -> dict[str, int]:
    monkeypatch.setattr(wind, "WORKER_FAULTS", (fault,))
    monkeypatch.setattr(wind, "ROUTER_FAULTS", (fault,))
    said: list[str] = []
    blown = Wind(found, NO_TIME, 0, said.append)
    blown.gust()
    assert len(said) == sum(blown.faults.values())
    return dict(blown.faults)


@pytest.mark.parametrize("is_router", [True, False])
def test_kill_ends_the_process(monkeypatch: pytest.MonkeyPatch, process: psutil.Process, is_router: bool) -> None:
    found = FakeVictims(process, is_router=is_router)
    assert gust(monkeypatch, found, Fault.KILL) == {f"kill {'router' if is_router else 'decode'}": 1}
    assert wait_ended([process], WAIT_S) == []


def test_stop_lets_the_process_go_on(monkeypatch: pytest.MonkeyPatch, process: psutil.Process) -> None:
    assert gust(monkeypatch, FakeVictims(process), Fault.STOP) == {"stop decode": 1}
    assert process.status() != psutil.STATUS_STOPPED


def test_hang_stops_a_process_that_is_watched_for_ever(
    monkeypatch: pytest.MonkeyPatch, process: psutil.Process
) -> None:
    assert gust(monkeypatch, FakeVictims(process), Fault.HANG) == {"hang decode": 1}
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)


def test_no_router_is_hit_while_a_worker_hangs(monkeypatch: pytest.MonkeyPatch, process: psutil.Process) -> None:
    monkeypatch.setattr(wind, "WORKER_FAULTS", (Fault.HANG,))
    found = FakeVictims(process)
    blown = Wind(found, NO_TIME, 0, lambda _fault: None)
    blown.gust()
    monkeypatch.setattr(found, "workers", dict)
    monkeypatch.setattr(found, "routers", lambda: {"router-0": [ProcessId(process.pid, 0.0)]})
    blown.gust()
    assert blown.faults == {"hang decode": 1}


def test_process_that_nobody_watches_is_killed_instead(
    monkeypatch: pytest.MonkeyPatch, process: psutil.Process
) -> None:
    assert gust(monkeypatch, FakeVictims(process, is_watched=False), Fault.HANG) == {"kill decode": 1}
    assert wait_ended([process], WAIT_S) == []


@pytest.mark.parametrize("takes_flips", [True, False])
def test_flip_counts_when_it_is_taken(
    monkeypatch: pytest.MonkeyPatch, process: psutil.Process, takes_flips: bool
) -> None:
    found = FakeVictims(process)
    found.takes_flips = takes_flips
    assert gust(monkeypatch, found, Fault.FLIP) == ({"flip decode": 1} if takes_flips else {})
    ((worker, role),) = found.flips
    assert worker == "decode-0"
    assert role in ROLES


def test_wind_blows_once_for_each_sign_of_progress_and_ends_with_its_context(
    monkeypatch: pytest.MonkeyPatch, process: psutil.Process
) -> None:
    monkeypatch.setattr(wind, "WORKER_FAULTS", (Fault.FLIP,))
    found = FakeVictims(process)
    blown = Wind(found, NO_TIME, 0, lambda _fault: None)
    with blown.blowing():
        assert blown.faults == {}
        blown.progressed()
    assert blown.faults.total() <= 1


# --- a real cluster's


def test_workers_are_those_of_the_status(process: psutil.Process) -> None:
    with running_router() as router:
        status = worker_status("decode-0")
        status.hello.processes.add(pid=process.pid, started_s=started_after_boot_s(process))
        router.answers["GetStatus"].workers.append(status)
        found = ClusterVictims(router.address, http_port=1)
        assert found.workers() == {"decode-0": [ProcessId(process.pid, started_after_boot_s(process))]}
        assert found.is_watched("decode-0")
        assert not found.is_watched("decode-1")
        assert found.routers() == {}


def test_cluster_whose_routers_do_not_answer_has_no_workers() -> None:
    with running_router() as router:
        address = router.address
    assert statuses(address) == []


def test_order_about_a_role_is_not_waited_for() -> None:
    with running_router() as router:
        router.steps = [step("ORDERED"), step("VERIFIED", is_last=True)]
        assert order_role(router.address, "decode-0", Role.MIXED)
        assert router.requests[0].worker == "decode-0"


def test_refused_order_is_no_fault() -> None:
    with running_router() as router:
        router.refusal = InvalidRequestError("it is the last of its half")
        assert not order_role(router.address, "decode-0", Role.PREFILL)


def test_listeners_are_found_by_their_port() -> None:
    with started(LISTEN) as child:
        assert child.stdout is not None
        port = int(child.stdout.readline())
        assert [process.pid for process in listeners(port, psutil.Process())] == [child.pid]
        assert ClusterVictims("127.0.0.1:1", port).routers() == {}, "the only router is left alone"


def test_routers_are_named_by_their_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [ProcessId(7, 1.0), ProcessId(8, 2.0)]
    monkeypatch.setattr(victims, "listeners", lambda _port, _root: iter(found))
    assert ClusterVictims("127.0.0.1:1", 80).routers() == {"router-7": [found[0]], "router-8": [found[1]]}
