"""Faults in a cluster of processes that do nothing, and of a router that a test scripts."""

import asyncio
import os
import subprocess
from collections.abc import Iterator, Sequence

import psutil
import pytest
from baton.v1 import common_pb2, control_pb2, worker_pb2

from core.errors import ConfigError, UnavailableError
from core.processes import ProcessId, started_after_boot_s, this_process
from core.request import Role
from deploy.load.cluster_faults import ClusterFaults
from deploy.run_record import RunRecord
from loadtest.load.faults import ROUTER, Deed, Fault
from tests.deploy.fake_router import FakeRouter, running_router, step, worker_role, worker_status
from tests.deploy.idle_process import LISTEN, started

WAIT_S = 30.0


@pytest.fixture
def router() -> Iterator[FakeRouter]:
    with running_router() as running:
        yield running


def has_workers(router: FakeRouter, **processes: Sequence[ProcessId]) -> None:
    """The router says that it has these workers with these processes; names have `_` for `-`."""
    workers = []
    for name, ranks in processes.items():
        status = worker_status(name.replace("_", "-"))
        status.hello.processes.extend(
            worker_pb2.RankProcess(pid=rank.pid, started_s=rank.started_s) for rank in ranks
        )
        workers.append(status)
    router.answers["GetStatus"] = control_pb2.GetStatusResponse(workers=workers)


def has_role(router: FakeRouter, name: str, role: int) -> None:
    router.answers["GetRoles"] = control_pb2.GetRolesResponse(workers=[worker_role(name, role)])


def faults_in(router: FakeRouter, record: RunRecord | None = None, http_port: int = 1) -> ClusterFaults:
    return ClusterFaults(router.address, record, http_port, "me")


def own_record(router: FakeRouter) -> RunRecord:
    """Of a cluster that descends from this process."""
    me = this_process()
    return RunRecord(me.pid, me.started_s, "http://127.0.0.1:1", router.address, "m", "")


def process_id(process: subprocess.Popen[str]) -> ProcessId:
    return ProcessId(process.pid, started_after_boot_s(psutil.Process(process.pid)))


async def wait_for_change(process: subprocess.Popen[str], kind: int) -> int:
    """The status of a child that has stopped or gone on."""
    return (await asyncio.to_thread(os.waitpid, process.pid, kind))[1]


async def test_worker_that_is_killed_is_dead(router: FakeRouter) -> None:
    with started() as process:
        has_workers(router, decode_0=[process_id(process)])
        outcome = await faults_in(router).do(Fault(0.0, Deed.KILL, "decode-0"))
        assert process.wait(WAIT_S) == -9
        assert outcome == f"kill: process {process.pid}"


async def test_worker_that_is_stopped_goes_on_though_nobody_knows_it_any_more(router: FakeRouter) -> None:
    with started() as process:
        has_workers(router, decode_0=[process_id(process)])
        faults = faults_in(router)
        await faults.do(Fault(0.0, Deed.STOP, "decode-0"))
        assert os.WIFSTOPPED(await wait_for_change(process, os.WUNTRACED))
        has_workers(router)
        await faults.do(Fault(0.0, Deed.CONT, "decode-0"))
        assert os.WIFCONTINUED(await wait_for_change(process, os.WCONTINUED))


async def test_router_is_found_by_its_port_and_killed(router: FakeRouter) -> None:
    with started(LISTEN) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        await faults_in(router, own_record(router), port).do(Fault(0.0, Deed.KILL, ROUTER))
        assert process.wait(WAIT_S) == -9


@pytest.mark.parametrize(
    ("role", "wanted", "ordered"),
    [
        (common_pb2.ROLE_DECODE, None, common_pb2.ROLE_PREFILL),
        (common_pb2.ROLE_PREFILL, None, common_pb2.ROLE_DECODE),
        (common_pb2.ROLE_PREFILL, Role.MIXED, common_pb2.ROLE_MIXED),
    ],
)
async def test_flip_leads_to_the_other_half_or_where_it_is_said(
    router: FakeRouter, role: int, wanted: Role | None, ordered: int
) -> None:
    has_role(router, "decode-0", role)
    router.steps = [step("ORDERED"), step("CHANGED", "is so since 12 ms"), step("VERIFIED", "works", is_last=True)]
    outcome = await faults_in(router).do(Fault(0.0, Deed.FLIP, "decode-0", wanted))
    asked = router.requests[-1]
    assert (asked.worker, asked.role, asked.actor, outcome) == ("decode-0", ordered, "me", "is so since 12 ms")


async def test_flip_of_a_mixed_worker_needs_a_role(router: FakeRouter) -> None:
    has_role(router, "decode-0", common_pb2.ROLE_MIXED)
    with pytest.raises(UnavailableError, match="is mixed; say which role"):
        await faults_in(router).do(Fault(0.0, Deed.FLIP, "decode-0"))


async def test_flip_that_fails_says_why(router: FakeRouter) -> None:
    has_role(router, "decode-0", common_pb2.ROLE_DECODE)
    router.steps = [step("ORDERED"), step("FAILED", "it executed nothing", is_last=True)]
    with pytest.raises(UnavailableError, match="it executed nothing"):
        await faults_in(router).do(Fault(0.0, Deed.FLIP, "decode-0"))


async def test_drain_is_done_when_it_is_ordered(router: FakeRouter) -> None:
    router.steps = [step("ORDERED", "8 request(s) are still to leave")]
    router.hangs = True
    assert await faults_in(router).do(Fault(0.0, Deed.DRAIN, "decode-0")) == "8 request(s) are still to leave"


async def test_drained_worker_has_work_again(router: FakeRouter) -> None:
    assert await faults_in(router).do(Fault(0.0, Deed.UNCORDON, "decode-0")) == "decode-0 has work again"
    assert router.requests[-1].worker == "decode-0"


async def test_worker_that_is_not_there_is_no_victim(router: FakeRouter) -> None:
    with pytest.raises(UnavailableError, match="decode-9 is not attached now"):
        await faults_in(router).do(Fault(0.0, Deed.KILL, "decode-9"))


async def test_process_of_another_machine_is_not_taken_for_one_of_this(router: FakeRouter) -> None:
    elsewhere = ProcessId(this_process().pid, this_process().started_s + 1e6)
    has_workers(router, decode_0=[elsewhere])
    with pytest.raises(UnavailableError, match="not all processes of decode-0"):
        await faults_in(router).do(Fault(0.0, Deed.STOP, "decode-0"))


def test_names_are_checked_before_anything_is_sent(router: FakeRouter) -> None:
    has_workers(router, prefill_0=[], decode_0=[])
    faults_in(router).check([Fault(1.0, Deed.KILL, "decode-0")])
    with pytest.raises(ConfigError, match="no worker is called 'decode-1'; there are prefill-0, decode-0"):
        faults_in(router).check([Fault(1.0, Deed.KILL, "decode-1")])
    with pytest.raises(ConfigError, match="needs a cluster that `baton serve` runs on this machine"):
        faults_in(router).check([Fault(1.0, Deed.KILL, ROUTER)])
