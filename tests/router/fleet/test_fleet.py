import asyncio
from collections.abc import AsyncIterator, Iterable

import pytest
import pytest_asyncio
from baton.v1 import common_pb2, worker_pb2

from core.clock import ManualClock
from core.errors import ConfigError, InvalidRequestError, StaleEpochError
from core.ids import WorkerEndpoint, WorkerId
from core.processes import ProcessId, RankProcess
from core.request import Role
from router.fleet import fleet as fleet_module
from router.fleet.fleet import Fleet
from router.fleet.link import WorkerLink
from tests.router.builders import LAYOUT
from tests.router.fleet.depths import depths_in
from tests.router.fleet.scripted_worker import WAIT_S, RecordingObserver, ScriptedWorker, token


@pytest.fixture
def observer() -> RecordingObserver:
    return RecordingObserver()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest_asyncio.fixture
async def fleet(observer: RecordingObserver, clock: ManualClock) -> AsyncIterator[Fleet]:
    fleet = Fleet("router-1", clock, WAIT_S, observer)
    yield fleet
    await fleet.close()


@pytest_asyncio.fixture
async def worker() -> AsyncIterator[ScriptedWorker]:
    async with ScriptedWorker("p0") as worker:
        yield worker


def names(links: Iterable[WorkerLink]) -> list[str]:
    return [str(link.worker) for link in links]


def refusal(fleet: Fleet, worker: ScriptedWorker) -> str:
    """What a worker that is not let in hears when it registers again."""
    with pytest.raises(ConfigError) as caught:
        fleet.register(worker.endpoint)
    return caught.value.message


def layout_with(**changes: int) -> tuple[tuple[str, int | str], ...]:
    return tuple((name, changes.get(name, value)) for name, value in LAYOUT)


def blocks_of(num_tokens: int) -> dict[str, object]:
    return {"layout": layout_with(block_tokens=num_tokens)}


# --- coming


async def test_registered_worker_is_attached_once_it_has_said_hello(
    fleet: Fleet, observer: RecordingObserver, worker: ScriptedWorker
) -> None:
    fleet.register(worker.endpoint)
    assert fleet.links() == []
    await observer.expect(("attached", worker))
    assert names(fleet.links()) == names(fleet.taking(Role.PREFILL)) == ["p0@1"]
    assert fleet.taking(Role.DECODE) == []
    assert await worker.attaching.get() == "router-1"


async def test_worker_that_registers_again_keeps_its_link(
    fleet: Fleet, observer: RecordingObserver, worker: ScriptedWorker
) -> None:
    fleet.register(worker.endpoint)
    fleet.register(worker.endpoint)
    await observer.expect(("attached", worker))
    (link,) = fleet.links()
    fleet.register(worker.endpoint)
    worker.report()
    await observer.expect(("report", worker))
    assert fleet.links() == [link]
    assert worker.attaching.qsize() == 1


async def test_workers_are_ordered_by_name(fleet: Fleet, observer: RecordingObserver) -> None:
    async with ScriptedWorker("b", Role.DECODE) as b, ScriptedWorker("a", Role.DECODE) as a:
        for worker in (b, a):
            fleet.register(worker.endpoint)
            await observer.expect(("attached", worker))
        assert names(fleet.taking(Role.DECODE)) == ["a@1", "b@1"]


async def test_silence_is_measured_on_the_fleets_clock(
    fleet: Fleet, clock: ManualClock, observer: RecordingObserver, worker: ScriptedWorker
) -> None:
    fleet.register(worker.endpoint)
    await observer.expect(("attached", worker))
    clock.advance(3.0)
    assert fleet.silent_s(fleet.links()[0]) == 3.0


@pytest.mark.parametrize(("name", "address"), [("", "127.0.0.1:1"), ("w", "")])
async def test_endpoint_without_name_or_address_is_refused(fleet: Fleet, name: str, address: str) -> None:
    with pytest.raises(InvalidRequestError, match="no name or no address"):
        fleet.register(WorkerEndpoint(WorkerId(name, 1), address))


# --- incarnations


async def test_newer_incarnation_replaces_the_older(
    fleet: Fleet, observer: RecordingObserver, worker: ScriptedWorker
) -> None:
    async with ScriptedWorker("p0", incarnation=2) as newer:
        fleet.register(worker.endpoint)
        await observer.expect(("attached", worker))
        fleet.register(newer.endpoint)
        assert fleet.links() == []  # at once: nothing more is placed on the older
        await observer.expect(("lost", worker), ("attached", newer))
        assert names(fleet.links()) == ["p0@2"]
        with pytest.raises(StaleEpochError, match="worker p0@1 was replaced by p0@2"):
            fleet.register(worker.endpoint)
        assert names(fleet.links()) == ["p0@2"]


async def test_worker_replaced_before_it_was_reached_leaves_nothing(
    fleet: Fleet, observer: RecordingObserver, worker: ScriptedWorker
) -> None:
    async with ScriptedWorker("p0", incarnation=2) as newer:
        fleet.register(worker.endpoint)
        fleet.register(newer.endpoint)
        await observer.expect(("attached", newer))
        assert len(fleet._tasks) == 1


async def test_other_incarnation_at_the_same_address_is_not_let_in(
    fleet: Fleet, observer: RecordingObserver, worker: ScriptedWorker, caplog: pytest.LogCaptureFixture
) -> None:
    restarted = WorkerEndpoint(WorkerId("p0", 2), worker.endpoint.address)
    worker.hello.endpoint.worker.incarnation = 2  # type: ignore[union-attr]
    fleet.register(worker.endpoint)
    await observer.expect(("lost", worker))
    assert "worker p0@1 is gone" in caplog.text
    worker.endpoint = restarted
    fleet.register(restarted)
    await observer.expect(("attached", worker))
    assert names(fleet.links()) == ["p0@2"]


# --- workers that do not fit


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fingerprint": "xyz"}, "worker d0@1 cannot serve with p0@1: model fingerprint abc against xyz"),
        ({"layout": (*LAYOUT[:-1], ("dtype", "bfloat16"))}, "KV layout: dtype float32 against bfloat16"),
        ({"layout": LAYOUT[:-1]}, "KV layout: dtype float32 against None"),
        (
            {"layout": layout_with(block_tokens=6)},
            "KV blocks of 4 against 6 tokens: one size must be a multiple of the other",
        ),
        ({"max_model_len": 65}, "max_model_len 64 against 65"),
    ],
)
async def test_worker_that_differs_is_refused_for_good_with_both_values(
    fleet: Fleet, observer: RecordingObserver, worker: ScriptedWorker, changes: dict[str, object], reason: str
) -> None:
    async with ScriptedWorker("d0", Role.DECODE, **changes) as other:
        fleet.register(worker.endpoint)
        await observer.expect(("attached", worker))
        fleet.register(other.endpoint)
        await observer.expect(("lost", other))
        assert reason in refusal(fleet, other)
        assert names(fleet.links()) == ["p0@1"]
        assert other.attaching.qsize() == 1


@pytest.mark.parametrize(
    "changes",
    [blocks_of(16), blocks_of(2), {"tensor_parallel_size": 2, "layout": layout_with(kv_heads=3)}],
)
async def test_worker_whose_kv_can_be_reconciled_is_let_in(
    fleet: Fleet, observer: RecordingObserver, worker: ScriptedWorker, changes: dict[str, object]
) -> None:
    async with ScriptedWorker("d0", Role.DECODE, **changes) as other:
        for member in (worker, other):
            fleet.register(member.endpoint)
            await observer.expect(("attached", member))
        assert names(fleet.links()) == ["d0@1", "p0@1"]


async def test_worker_must_go_together_with_each_of_the_others(
    fleet: Fleet, observer: RecordingObserver, worker: ScriptedWorker
) -> None:
    """Blocks of 8 and of 12 tokens both go with blocks of 4."""
    async with (
        ScriptedWorker("d0", Role.DECODE, **blocks_of(8)) as d0,
        ScriptedWorker("d1", Role.DECODE, **blocks_of(12)) as d1,
    ):
        for member in (worker, d0):
            fleet.register(member.endpoint)
            await observer.expect(("attached", member))
        fleet.register(d1.endpoint)
        await observer.expect(("lost", d1))
        assert "worker d1@1 cannot serve with d0@1: KV blocks of 8 against 12 tokens" in refusal(fleet, d1)


async def test_refused_worker_is_let_in_when_the_other_has_gone(
    fleet: Fleet, observer: RecordingObserver, worker: ScriptedWorker
) -> None:
    async with ScriptedWorker("d0", Role.DECODE, fingerprint="xyz") as other:
        fleet.register(worker.endpoint)
        await observer.expect(("attached", worker))
        fleet.register(other.endpoint)
        await observer.expect(("lost", other))
        worker.end_stream()
        await observer.expect(("lost", worker))
        fleet.register(other.endpoint)
        await observer.expect(("attached", other))


async def test_newer_incarnation_of_a_refused_worker_is_looked_at_anew(
    fleet: Fleet, observer: RecordingObserver, worker: ScriptedWorker
) -> None:
    async with (
        ScriptedWorker("d0", Role.DECODE, fingerprint="xyz") as wrong,
        ScriptedWorker("d0", Role.DECODE, incarnation=2) as right,
    ):
        fleet.register(worker.endpoint)
        await observer.expect(("attached", worker))
        fleet.register(wrong.endpoint)
        await observer.expect(("lost", wrong))
        fleet.register(right.endpoint)
        await observer.expect(("attached", right))
        assert fleet._refusals == {}


async def test_worker_with_an_unknown_role_is_refused_and_the_others_stay(
    fleet: Fleet, observer: RecordingObserver, worker: ScriptedWorker, caplog: pytest.LogCaptureFixture
) -> None:
    async with ScriptedWorker("bad") as bad:
        bad.hello.role_state.role = 17
        fleet.register(worker.endpoint)
        await observer.expect(("attached", worker))
        fleet.register(bad.endpoint)
        await observer.expect(("lost", bad))
        assert "its role is number 17" in refusal(fleet, bad)
        assert "Traceback" not in caplog.text
        worker.report()
        await observer.expect(("report", worker))
        assert names(fleet.links()) == ["p0@1"]


async def test_worker_whose_second_hello_has_another_role_changes_its_role(
    fleet: Fleet, observer: RecordingObserver, worker: ScriptedWorker
) -> None:
    fleet.register(worker.endpoint)
    await observer.expect(("attached", worker))
    worker.say_hello(role_state=worker_pb2.RoleState(role=common_pb2.ROLE_DECODE, role_epoch=4))
    await observer.expect(("attached", worker))
    assert fleet.taking(Role.PREFILL) == []
    (link,) = fleet.taking(Role.DECODE)
    assert link.role_state.epoch == 4


async def test_worker_whose_second_hello_does_not_fit_is_lost(
    fleet: Fleet, observer: RecordingObserver, worker: ScriptedWorker
) -> None:
    async with ScriptedWorker("d0", Role.DECODE) as other:
        for member in (worker, other):
            fleet.register(member.endpoint)
            await observer.expect(("attached", member))
        worker.say_hello(model_fingerprint="xyz")
        await observer.expect(("lost", worker))
        assert names(fleet.links()) == ["d0@1"]


# --- going


async def test_worker_that_ends_its_stream_is_lost_and_may_come_back(
    fleet: Fleet, observer: RecordingObserver, worker: ScriptedWorker
) -> None:
    fleet.register(worker.endpoint)
    await observer.expect(("attached", worker))
    worker.end_stream()
    await observer.expect(("lost", worker))
    assert fleet.links() == []
    fleet.register(worker.endpoint)
    await observer.expect(("attached", worker))
    assert names(fleet.links()) == ["p0@1"]
    assert len(fleet._tasks) == 1


async def test_silent_worker_is_lost(fleet: Fleet, observer: RecordingObserver, worker: ScriptedWorker) -> None:
    fleet.register(worker.endpoint)
    await observer.expect(("attached", worker))
    fleet.links()[0]._heartbeat_timeout_s = 0.05  # from the next message on
    worker.report()
    await observer.expect(("report", worker), ("lost", worker))
    assert fleet.links() == []
    assert await asyncio.wait_for(worker.detached.get(), WAIT_S) == "router-1"


async def test_worker_that_dies_is_lost(fleet: Fleet, observer: RecordingObserver) -> None:
    async with ScriptedWorker("p0") as worker:
        fleet.register(worker.endpoint)
        await observer.expect(("attached", worker))
    await observer.expect(("lost", worker))
    assert fleet.links() == []


async def test_close_detaches_from_all(fleet: Fleet, observer: RecordingObserver, worker: ScriptedWorker) -> None:
    fleet.register(worker.endpoint)
    await observer.expect(("attached", worker))
    await fleet.close()
    await observer.expect(("lost", worker))
    assert fleet.links() == []
    assert fleet._tasks == {}
    assert await asyncio.wait_for(worker.detached.get(), WAIT_S) == "router-1"


# --- defects in who listens


@pytest.mark.parametrize("where", ["attached", "report"])
async def test_observer_that_fails_loses_that_worker_and_no_other(
    fleet: Fleet,
    observer: RecordingObserver,
    worker: ScriptedWorker,
    caplog: pytest.LogCaptureFixture,
    where: str,
) -> None:
    async with ScriptedWorker("d0", Role.DECODE) as other:
        fleet.register(other.endpoint)
        await observer.expect(("attached", other))
        observer.fails_at = {where}
        fleet.register(worker.endpoint)
        await observer.expect(("attached", worker))
        if where == "report":
            worker.report(token(0))
            await observer.expect(("report", worker))
        await observer.expect(("lost", worker))
        assert names(fleet.links()) == ["d0@1"]
        assert "is detached because of a defect" in caplog.text
        observer.fails_at = set()
        fleet.register(worker.endpoint)
        await observer.expect(("attached", worker))
        other.report()
        await observer.expect(("report", other))


async def test_observer_that_fails_at_a_loss_leaves_no_link(
    fleet: Fleet, observer: RecordingObserver, worker: ScriptedWorker, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.register(worker.endpoint)
    await observer.expect(("attached", worker))
    observer.fails_at = {"lost"}
    worker.end_stream()
    await observer.expect(("lost", worker))
    assert fleet.links() == []
    observer.fails_at = set()
    fleet.register(worker.endpoint)
    await observer.expect(("attached", worker))
    assert "the loss of worker p0@1 was not handled" in caplog.text


# --- KV blocks

NAMES = [bytes([number]) * 16 for number in range(4)]


async def test_names_of_a_worker_are_known_until_it_is_lost(
    fleet: Fleet, observer: RecordingObserver, worker: ScriptedWorker
) -> None:
    fleet.register(worker.endpoint)
    worker.say_all_kv(7, *NAMES[:2])
    worker.say_kv(7, NAMES[2])
    await observer.expect(("attached", worker), ("report", worker), ("report", worker))
    assert depths_in(fleet.prefixes, NAMES) == {worker.endpoint.worker: 3}
    worker.end_stream()
    await observer.expect(("lost", worker))
    assert depths_in(fleet.prefixes, NAMES) == {}


async def test_gap_in_the_names_of_a_worker_asks_it_for_all_of_them(
    fleet: Fleet, observer: RecordingObserver, worker: ScriptedWorker
) -> None:
    fleet.register(worker.endpoint)
    worker.say_all_kv(7, *NAMES[:2])
    worker.say_kv(8, NAMES[3])
    order = await asyncio.wait_for(worker.orders.get(), WAIT_S)
    assert order.HasField("query_kv")
    worker.say_all_kv(9, *NAMES)
    await observer.expect(("attached", worker), *[("report", worker)] * 3)
    assert depths_in(fleet.prefixes, NAMES) == {worker.endpoint.worker: 4}


# --- dying


PROCESSES = (RankProcess("node-1", ProcessId(7, 1.0)),)


async def test_death_of_an_incarnation_is_told_when_a_newer_one_comes(
    fleet: Fleet, observer: RecordingObserver, worker: ScriptedWorker
) -> None:
    async with ScriptedWorker("p0", incarnation=2) as newer, ScriptedWorker("d0", Role.DECODE) as peer:
        for each in (worker, peer):
            fleet.register(each.endpoint)
            await observer.expect(("attached", each))
        worker.end_stream()
        await observer.expect(("lost", worker))
        assert peer.orders.empty()  # it may come back: nobody knows yet whether it is dead
        fleet.register(newer.endpoint)
        assert await peer.hears_gone() == WorkerId("p0", 1)
        await observer.expect(("attached", newer))


async def test_new_router_tells_that_the_earlier_incarnations_of_whoever_comes_are_dead(
    fleet: Fleet, observer: RecordingObserver
) -> None:
    async with (
        ScriptedWorker("p0", incarnation=20) as newer,
        ScriptedWorker("d0", Role.DECODE) as early,
        ScriptedWorker("d1", Role.DECODE) as late,
    ):
        for each in (early, newer, late):
            fleet.register(each.endpoint)
            await observer.expect(("attached", each))
        for peer in (early, late):
            assert await peer.hears_gone() == WorkerId("p0", 19)
            assert peer.orders.empty()
        assert names(fleet.links()) == ["d0@1", "d1@1", "p0@20"]


async def test_worker_that_attaches_later_hears_who_is_dead(
    fleet: Fleet, observer: RecordingObserver, worker: ScriptedWorker
) -> None:
    fleet.register(worker.endpoint)
    await observer.expect(("attached", worker))
    fleet.worker_gone(WorkerId("p0", 1))
    await observer.expect(("lost", worker))
    async with ScriptedWorker("d0", Role.DECODE) as peer:
        fleet.register(peer.endpoint)
        assert await peer.hears_gone() == WorkerId("p0", 1)


async def test_worker_said_to_be_dead_is_detached_and_does_not_come_back(
    fleet: Fleet, observer: RecordingObserver, worker: ScriptedWorker
) -> None:
    fleet.register(worker.endpoint)
    await observer.expect(("attached", worker))
    fleet.worker_gone(WorkerId("p0", 1))
    assert fleet.links() == []
    await observer.expect(("lost", worker))
    with pytest.raises(StaleEpochError, match="worker p0@1 was found dead"):
        fleet.register(worker.endpoint)


async def test_late_word_of_a_death_leaves_the_newer_incarnation_alone(
    fleet: Fleet, observer: RecordingObserver
) -> None:
    async with ScriptedWorker("p0", incarnation=2) as newer, ScriptedWorker("d0", Role.DECODE) as peer:
        for each in (newer, peer):
            fleet.register(each.endpoint)
            await observer.expect(("attached", each))
        for _ in range(2):
            fleet.worker_gone(WorkerId("p0", 1))
        assert names(fleet.taking(Role.PREFILL)) == ["p0@2"]
        assert await peer.hears_gone() == WorkerId("p0", 1)
        with pytest.raises(InvalidRequestError, match=r"worker p0@3 is not known; the latest of that name is p0@2"):
            fleet.worker_gone(WorkerId("p0", 3))
        assert peer.orders.empty()


def wait_awake(fleet: Fleet, clock: ManualClock, seconds: int) -> None:
    """Time passes, and the router runs meanwhile."""
    for _ in range(seconds):
        clock.advance(1.0)
        fleet._awake.now_s()


async def test_time_in_which_the_router_was_held_up_is_no_silence_of_its_workers(
    fleet: Fleet, clock: ManualClock, observer: RecordingObserver
) -> None:
    async with ScriptedWorker("p0", processes=PROCESSES) as worker:
        fleet.register(worker.endpoint)
        await observer.expect(("attached", worker))
        clock.advance(30.0)
        assert fleet.silent_workers(15.0) == []
        wait_awake(fleet, clock, 13)
        (silent,) = fleet.silent_workers(15.0)
        assert silent.worker == WorkerId("p0", 1)


async def test_running_fleet_counts_silence_though_nobody_asks(
    fleet: Fleet, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_module, "TICK_S", 0)
    async with fleet.running():
        for _ in range(5):
            await asyncio.sleep(0)
            clock.advance(1.0)
        assert fleet._awake.now_s() == 5.0


async def test_lost_worker_stays_silent_until_it_reports_or_is_dead(
    fleet: Fleet, clock: ManualClock, observer: RecordingObserver
) -> None:
    async with ScriptedWorker("p0", processes=PROCESSES) as worker:
        fleet.register(worker.endpoint)
        await observer.expect(("attached", worker))
        wait_awake(fleet, clock, 20)
        worker.end_stream()
        await observer.expect(("lost", worker))
        fleet.register(worker.endpoint)
        await observer.expect(("attached", worker))
        (silent,) = fleet.silent_workers(15.0)
        assert (silent.worker, silent.silent_s, silent.processes) == (WorkerId("p0", 1), 20.0, PROCESSES)
        worker.report()
        await observer.expect(("report", worker))
        assert fleet.silent_workers(15.0) == []
        wait_awake(fleet, clock, 20)
        fleet.worker_gone(WorkerId("p0", 1))
        assert fleet.silent_workers(15.0) == []


async def test_silence_of_a_refused_worker_means_nothing(
    fleet: Fleet, clock: ManualClock, observer: RecordingObserver, worker: ScriptedWorker
) -> None:
    async with ScriptedWorker("d0", Role.DECODE, fingerprint="other", processes=PROCESSES) as refused:
        fleet.register(worker.endpoint)
        await observer.expect(("attached", worker))
        fleet.register(refused.endpoint)
        await observer.expect(("lost", refused))
        wait_awake(fleet, clock, 20)
        assert {silent.worker.name: silent.is_refused for silent in fleet.silent_workers(15.0)}["d0"]
