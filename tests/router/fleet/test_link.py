import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio
from baton.v1 import worker_pb2

from core.clock import ManualClock
from core.errors import ConfigError, UnavailableError
from core.ids import WorkerEndpoint, WorkerId
from core.request import Role
from router.fleet import order_queue
from router.fleet.link import WorkerLink
from tests.builders import assignment
from tests.router.fleet.scripted_worker import WAIT_S, RecordingObserver, ScriptedWorker, token


def link_to(worker: ScriptedWorker, heartbeat_timeout_s: float = WAIT_S) -> WorkerLink:
    return WorkerLink(worker.endpoint, "router-1", ManualClock(5.0), heartbeat_timeout_s)


@pytest_asyncio.fixture
async def worker() -> AsyncIterator[ScriptedWorker]:
    async with ScriptedWorker("w", Role.DECODE) as worker:
        yield worker


@pytest.fixture
def observer() -> RecordingObserver:
    return RecordingObserver()


async def test_stream_begins_with_both_hellos(worker: ScriptedWorker, observer: RecordingObserver) -> None:
    link = link_to(worker)
    running = asyncio.create_task(link.run(observer))
    await observer.expect(("attached", worker))
    assert await worker.attaching.get() == "router-1"
    assert link.takes(Role.DECODE)
    assert not link.takes(Role.PREFILL)
    assert link.attached.endpoint == worker.endpoint
    worker.end_stream()
    with pytest.raises(UnavailableError, match="worker w@1 ended the stream"):
        await asyncio.wait_for(running, WAIT_S)
    assert link.hello is None


async def test_worker_that_does_not_take_its_orders_is_detached(
    worker: ScriptedWorker, observer: RecordingObserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order_queue, "MAX_QUEUED_ORDERS", 2)
    link = link_to(worker)
    for number in range(3):
        link.cancel(f"r.{number}")
    with pytest.raises(UnavailableError, match="worker w@1 does not take its orders"):
        await asyncio.wait_for(link.run(observer), WAIT_S)
    assert link.hello is None


async def test_what_is_sent_after_a_report_comes_on_top_of_the_work_of_others(
    worker: ScriptedWorker, observer: RecordingObserver
) -> None:
    link = link_to(worker)
    link.assigned_sequences = 2
    running = asyncio.create_task(link.run(observer))
    await observer.expect(("attached", worker))
    assert link.num_sequences == 2
    worker.report(running=5)
    await observer.expect(("report", worker))
    await asyncio.sleep(0)
    assert link.num_sequences == 5
    link.assigned_sequences += 3
    assert link.num_sequences == 8
    worker.end_stream()
    await asyncio.wait([running])
    assert running.exception() is not None


async def test_orders_arrive_in_order_with_the_epoch(worker: ScriptedWorker, observer: RecordingObserver) -> None:
    link = link_to(worker)
    running = asyncio.create_task(link.run(observer))
    await observer.expect(("attached", worker))
    link.assign(assignment("r.0"))
    link.cancel("r.0")
    link.assign(assignment("r.1"))
    orders = [await asyncio.wait_for(worker.orders.get(), WAIT_S) for _ in range(3)]
    assert [order.WhichOneof("message") for order in orders] == ["assign", "cancel", "assign"]
    assert (orders[0].assign.handoff_id, orders[0].assign.role_epoch) == ("r.0", 3)
    assert orders[1].cancel.handoff_id == "r.0"
    worker.end_stream()
    await asyncio.wait([running])
    assert running.exception() is not None


async def test_report_sets_the_load_and_the_time(worker: ScriptedWorker, observer: RecordingObserver) -> None:
    clock = ManualClock(5.0)
    link = WorkerLink(worker.endpoint, "router-1", clock, WAIT_S)
    running = asyncio.create_task(link.run(observer))
    await observer.expect(("attached", worker))
    clock.advance(2.0)
    worker.report(token(0), running=4)
    await observer.expect(("report", worker))
    assert (link.load.running_sequences, link.heard_s) == (4, 7.0)
    assert [run.position for run in observer.reports[0].runs] == [0]
    worker.end_stream()
    await asyncio.wait([running])
    assert running.exception() is not None


async def test_silent_worker_is_treated_as_dead(worker: ScriptedWorker, observer: RecordingObserver) -> None:
    link = link_to(worker)
    running = asyncio.create_task(link.run(observer))
    await observer.expect(("attached", worker))
    link._heartbeat_timeout_s = 0.05  # from the next message on: until then nothing depends on the machine's speed
    worker.report()
    with pytest.raises(UnavailableError, match=r"silent for 0\.05 s"):
        await asyncio.wait_for(running, WAIT_S)
    await observer.expect(("report", worker))
    assert await asyncio.wait_for(worker.detached.get(), WAIT_S) == "router-1"


async def test_message_that_came_while_the_router_was_held_up_is_heard(observer: RecordingObserver) -> None:
    class Piled:
        """A stream on which something is waiting that takes the event loop a few rounds to bring."""

        def __init__(self) -> None:
            self.messages = [worker_pb2.AttachResponse(report=worker_pb2.StepReport())]

        async def read(self) -> object:
            for _ in range(10):
                await asyncio.sleep(0)
            return self.messages.pop() if self.messages else grpc.aio.EOF

    endpoint = WorkerEndpoint(WorkerId("w", 1), "127.0.0.1:1")
    overdue = WorkerLink(endpoint, "router-1", ManualClock(), heartbeat_timeout_s=0.0)
    with pytest.raises(UnavailableError, match="ended the stream"):
        await overdue._receive(Piled(), observer)  # type: ignore[arg-type] - all that is asked of a stream
    assert len(observer.reports) == 1


async def test_worker_that_never_says_hello_is_treated_as_dead(
    worker: ScriptedWorker, observer: RecordingObserver
) -> None:
    worker.hello = None
    with pytest.raises(UnavailableError, match="is treated as dead"):
        await asyncio.wait_for(link_to(worker, heartbeat_timeout_s=0.2).run(observer), WAIT_S)
    assert observer.is_quiet()


async def test_address_where_nobody_listens_is_unavailable(observer: RecordingObserver) -> None:
    link = WorkerLink(WorkerEndpoint(WorkerId("w", 1), "127.0.0.1:1"), "router-1", ManualClock(), WAIT_S)
    with pytest.raises(UnavailableError, match="worker w@1: UNAVAILABLE"):
        await asyncio.wait_for(link.run(observer), WAIT_S)


@pytest.mark.parametrize("role", [0, 17])
async def test_unknown_role_is_a_config_error(worker: ScriptedWorker, observer: RecordingObserver, role: int) -> None:
    worker.hello.role_state.role = role  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match=f"worker w@1 says its role is number {role}; run the same version"):
        await asyncio.wait_for(link_to(worker).run(observer), WAIT_S)
    assert observer.is_quiet()


@pytest.mark.parametrize("field", ["num_blocks", "max_num_seqs", "max_model_len"])
async def test_hello_with_nothing_to_serve_with_is_a_config_error(
    worker: ScriptedWorker, observer: RecordingObserver, field: str
) -> None:
    setattr(worker.hello, field, 0)
    with pytest.raises(ConfigError, match=f"{field} is 0"):
        await asyncio.wait_for(link_to(worker).run(observer), WAIT_S)


async def test_unknown_finish_reason_ends_the_stream(worker: ScriptedWorker, observer: RecordingObserver) -> None:
    details = worker_pb2.TokenRunDetails(finish_reason=17)
    worker.say_runs(
        worker_pb2.TokenRuns(handoff_ids=["r.0"], positions=[0], lengths=[1], token_ids=[7], details=[details])
    )
    with pytest.raises(UnavailableError, match="number 17"):
        await asyncio.wait_for(link_to(worker).run(observer), WAIT_S)
    assert observer.reports == []


async def test_cancelled_link_ends_its_stream(worker: ScriptedWorker, observer: RecordingObserver) -> None:
    running = asyncio.create_task(link_to(worker).run(observer))
    await observer.expect(("attached", worker))
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    assert await asyncio.wait_for(worker.detached.get(), WAIT_S) == "router-1"
