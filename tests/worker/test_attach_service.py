import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import grpc
import pytest
from baton.v1 import worker_pb2

from core.clock import ManualClock
from core.events import TokenEvent, WorkerLoad
from core.ids import WorkerEndpoint, WorkerId
from core.kv_events import KvEvents, KvSnapshot
from core.request import Assignment, FinishReason, Role
from core.roles import RoleState
from core.sampling import SamplingParams
from core.transfers import PairReport, PairStats, TransferReport
from decode_worker.half import DecodeHalf
from engine.kv.name_log import NameLog
from prefill_worker.half import PrefillHalf
from router import transfer_wire, wire
from tests.builders import ListPort, assignment, keep_here, run_of, small_pool
from tests.oracles import greedy_tokens
from tests.worker.loops import greedy
from tests.worker.routers import AttachedRouter, attached, is_free, look, wait_until
from tests.worker.test_identity import IDENTITY
from worker import attach_service, name_desk
from worker.attach_service import AttachService
from worker.experts import ExpertDesk
from worker.mailbox import Mailbox
from worker.name_desk import NameDesk
from worker.process import WorkerProcess
from worker.report import StepOutbox, StepReport
from worker.role_book import RoleBook

PROMPT = (5, 17, 40, 99, 3, 3, 120)
NOWHERE = WorkerEndpoint(WorkerId("nobody-0", 1), "127.0.0.1:1")  # nothing listens at port 1


def work_for(process: WorkerProcess, handoff_id: str, max_new_tokens: int = 1, **changes: object) -> Assignment:
    """One that the process can finish alone."""
    work = greedy(handoff_id, PROMPT, max_new_tokens)
    return replace(work, **{"prefill": process.endpoint, "decode": NOWHERE, **changes})


def test_hello_says_who_the_worker_is_and_what_it_can_do(prefill: WorkerProcess) -> None:
    router = AttachedRouter(prefill.endpoint.address, wire.router_hello_to_proto("router-hello"))
    hello = router.hello()
    router.close()
    assert hello.endpoint == prefill.endpoint
    assert hello.role_state == RoleState(Role.PREFILL, epoch=1)
    assert hello.fingerprint == prefill.engine.fingerprint
    assert dict(hello.layout) == {
        "num_layers": 4, "kv_heads": 2, "block_tokens": 4, "head_dim": 16, "dtype": "float32"
    }  # fmt: skip
    assert (hello.num_blocks, hello.max_num_seqs, hello.max_model_len) == (256, 4, 256)
    assert hello.cost_model.chunk_tokens == 16
    assert 0 < hello.cost_model.prefill_s(16, 128) < 10


def test_second_router_with_the_same_id_is_refused_and_the_first_goes_on(prefill: WorkerProcess) -> None:
    with attached(prefill) as first:
        second = AttachedRouter(prefill.endpoint.address, wire.router_hello_to_proto("router-1"))
        assert second.wait_end() is grpc.StatusCode.FAILED_PRECONDITION
        assert "'router-1'" in second.details()
        second.close()
        first.assign(work_for(prefill, "same-id"))
        assert len(first.wait_tokens("same-id", until_end=True)) == 1


@pytest.mark.parametrize(
    "first",
    [None, wire.cancel_to_proto("h"), wire.assignment_to_proto(assignment("h"), 1), wire.router_hello_to_proto("")],
)
def test_stream_that_does_not_begin_with_a_hello_is_refused(
    prefill: WorkerProcess, first: worker_pb2.AttachRequest | None
) -> None:
    router = AttachedRouter(prefill.endpoint.address, first)
    assert router.wait_end() is grpc.StatusCode.FAILED_PRECONDITION
    assert "the first message must be a hello" in router.details()
    router.close()


def test_router_that_leaves_ends_the_stream_well_and_may_come_back(prefill: WorkerProcess) -> None:
    with attached(prefill, "router-back") as router:
        router.hang_up()
        assert router.wait_end() is grpc.StatusCode.OK
    with attached(prefill, "router-back") as router:
        router.assign(work_for(prefill, "back"))
        assert len(router.wait_tokens("back", until_end=True)) == 1


def test_each_router_hears_of_its_own_work_only(prefill: WorkerProcess) -> None:
    with attached(prefill, "router-a") as a, attached(prefill, "router-b") as b:
        a.assign(work_for(prefill, "of-a"))
        a.wait_tokens("of-a", until_end=True)
        b.assign(work_for(prefill, "of-b"))
        b.wait_tokens("of-b", until_end=True)
        assert (set(a.tokens), set(b.tokens)) == ({"of-a"}, {"of-b"})


def test_token_carries_position_and_reason(prefill: WorkerProcess) -> None:
    (expected,) = greedy_tokens(prefill.config.model_dir, PROMPT, 1)
    with attached(prefill) as router:
        router.assign(work_for(prefill, "t", first_position=11))
        (event,) = router.wait_tokens("t", until_end=True)
    assert (event.position, event.token_id, event.finish_reason) == (11, expected, FinishReason.LENGTH)
    wait_until(prefill, is_free)


@pytest.mark.parametrize(
    ("changes", "code", "is_retryable", "words"),
    [
        ({"prefill": NOWHERE}, "stale_epoch", True, "which the assignment does not name"),
        ({"prompt": (1, 160)}, "invalid_value", False, "token id 160"),
        ({"prompt": ()}, "invalid_value", False, "at least one prompt token"),
        ({"prompt": (1,) * 250, "max_new_tokens": 7}, "context_length_exceeded", False, "257 tokens"),
    ],
)
def test_assignment_that_cannot_be_served_is_returned_with_the_reason(
    prefill: WorkerProcess,
    changes: dict[str, object],
    code: str,
    is_retryable: bool,
    words: str,
) -> None:
    with attached(prefill) as router:
        router.assign(work_for(prefill, "bad", **changes))
        work = router.wait_returned("bad")
        assert (work.code, work.retryable) == (code, is_retryable)
        assert words in work.message
        router.assign(work_for(prefill, "good"))
        assert len(router.wait_tokens("good", until_end=True)) == 1
    wait_until(prefill, is_free)


def test_assignment_for_an_earlier_incarnation_is_stale(prefill: WorkerProcess) -> None:
    me = prefill.endpoint
    earlier = WorkerEndpoint(WorkerId(me.worker.name, me.worker.incarnation - 1), me.address)
    with attached(prefill) as router:
        router.assign(work_for(prefill, "old", prefill=earlier))
        assert router.wait_returned("old").code == "stale_epoch"


@pytest.mark.parametrize("role_epoch", [0, 2])
def test_assignment_of_another_epoch_is_stale(prefill: WorkerProcess, role_epoch: int) -> None:
    with attached(prefill) as router:
        router.assign(work_for(prefill, "epoch"), role_epoch)
        work = router.wait_returned("epoch")
    assert (work.code, work.retryable) == ("stale_epoch", True)


def test_assignment_over_the_queue_limit_is_returned(prefill: WorkerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attach_service, "MAX_QUEUED_PROMPTS", 0)
    with attached(prefill) as router:
        router.assign(work_for(prefill, "late"))
        work = router.wait_returned("late")
    assert (work.code, work.retryable) == ("unavailable", True)


def test_sequence_over_the_limit_of_those_to_come_is_returned(
    prefill: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attach_service, "MAX_QUEUED_PROMPTS", 1)
    elsewhere = {"prefill": NOWHERE, "decode": prefill.endpoint, "max_new_tokens": 2}
    with attached(prefill) as router:
        router.assign(work_for(prefill, "first", **elsewhere))
        wait_until(prefill, lambda process: process.loop.decode.num_incoming == 1)
        router.assign(work_for(prefill, "late", **elsewhere))
        work = router.wait_returned("late")
    assert (work.code, work.retryable) == ("unavailable", True)
    assert "has 0 prompts queued and 1 to come; it takes no more" in work.message


def test_sampling_out_of_range_is_returned(prefill: WorkerProcess) -> None:
    request = wire.assignment_to_proto(work_for(prefill, "hot", sampling=SamplingParams(temperature=1.0)), 1)
    request.assign.sampling.temperature = 9.0
    with attached(prefill) as router:
        router.send(request)
        work = router.wait_returned("hot")
    assert (work.code, work.retryable) == ("invalid_value", False)
    assert "temperature is 9.0" in work.message


def test_target_that_cannot_be_reached_gives_the_work_back(prefill: WorkerProcess) -> None:
    with attached(prefill) as router:
        router.assign(work_for(prefill, "lonely", max_new_tokens=4))
        work = router.wait_returned("lonely")
    assert (work.code, work.retryable) == ("handoff_failed", True)
    assert "worker nobody-0@1 answered UNAVAILABLE" in work.message
    wait_until(prefill, is_free)


def test_router_that_detaches_takes_its_work_along(decode: WorkerProcess) -> None:
    with attached(decode, "router-gone") as router:
        router.assign(work_for(decode, "announced", 8, prefill=NOWHERE, decode=decode.endpoint))
        wait_until(decode, lambda d: d.decode.num_incoming == 1)
    wait_until(decode, is_free)


def test_cancel_ends_the_work(decode: WorkerProcess) -> None:
    with attached(decode) as router:
        router.assign(work_for(decode, "cancelled", 8, prefill=NOWHERE, decode=decode.endpoint))
        wait_until(decode, lambda d: d.decode.num_incoming == 1)
        router.cancel("cancelled")
        router.cancel("unknown")
        wait_until(decode, is_free)


def test_heartbeat_has_the_load(decode: WorkerProcess) -> None:
    with attached(decode) as router:
        while router.load is None:
            router.read()
        assert router.load.blocks_total == 256
        assert look(decode, lambda d: d.loop.load().blocks_total) == 256


# --- the service alone, read as slowly as the test wants


class NoContext:
    """Only `abort` is ever called."""

    async def abort(self, code: grpc.StatusCode, message: str) -> None:
        raise AssertionError(f"{code}: {message}")


class Orders:
    """A router's messages: those given, then none, but it does not hang up."""

    def __init__(self, *requests: worker_pb2.AttachRequest) -> None:
        self._requests = list(requests)

    def __aiter__(self) -> "Orders":
        return self

    async def __anext__(self) -> worker_pb2.AttachRequest:
        if not self._requests:
            await asyncio.Event().wait()
        return self._requests.pop(0)


def lone_service(
    on_gone: Callable[[WorkerId], None] = lambda _: None, on_leave: Callable[[float | None], None] = lambda _: None
) -> tuple[AttachService, Mailbox]:
    mailbox, outbox, clock, pool = Mailbox(), StepOutbox(), ManualClock(), small_pool(8)
    prefill = PrefillHalf(pool, ListPort(), outbox, clock, next_step=lambda: 1, take_over=keep_here)
    halves = prefill, DecodeHalf(pool, ListPort(), outbox, clock, max_num_seqs=4)
    no_engine: Any = None  # nobody asks about experts
    desks = ExpertDesk(no_engine, mailbox, nullcontext), NameDesk(pool.name_log, mailbox)
    roles = RoleBook(IDENTITY.endpoint.worker, Role.PREFILL, clock, lambda *_: None)
    service = AttachService(
        IDENTITY, mailbox, *halves, *desks, roles, clock=clock, on_gone=on_gone, on_leave=on_leave
    )
    return service, mailbox


async def test_word_that_a_worker_is_gone_is_passed_on() -> None:
    heard: list[WorkerId] = []
    service, _ = lone_service(heard.append)
    context: Any = NoContext()
    gone = WorkerId("decode-7", 3)
    orders = Orders(wire.router_hello_to_proto("r"), wire.worker_gone_to_proto(gone))
    stream = service.Attach(orders, context)
    await anext(stream)
    await asyncio.sleep(0)  # lets the reader go through them
    assert heard == [gone]
    await stream.aclose()


async def test_orders_that_come_together_are_obeyed_in_order() -> None:
    heard: list[float | None] = []
    service, _ = lone_service(on_leave=heard.append)
    context: Any = NoContext()
    together = wire.leave_to_proto(1.0)
    together.further.extend(map(wire.leave_to_proto, (2.0, 3.0)))
    stream = service.Attach(Orders(wire.router_hello_to_proto("r"), together, wire.leave_to_proto(4.0)), context)
    await anext(stream)
    await asyncio.sleep(0)  # lets the reader go through them
    assert heard == [1.0, 2.0, 3.0, 4.0]
    await stream.aclose()


async def test_order_to_leave_is_passed_on_with_its_time_if_it_has_one() -> None:
    heard: list[float | None] = []
    service, _ = lone_service(on_leave=heard.append)
    context: Any = NoContext()
    hello = wire.router_hello_to_proto("r")
    stream = service.Attach(Orders(hello, *map(wire.leave_to_proto, (None, 0.0, 5.0))), context)
    await anext(stream)
    await asyncio.sleep(0)  # lets the reader go through them
    assert heard == [None, 0.0, 5.0]
    await stream.aclose()


async def test_leaving_worker_tells_all_routers_and_takes_no_more_work() -> None:
    service, mailbox = lone_service()
    context: Any = NoContext()
    late = Orders(wire.router_hello_to_proto("a"), wire.assignment_to_proto(assignment("late"), role_epoch=1))
    streams = [service.Attach(late, context), service.Attach(Orders(wire.router_hello_to_proto("b")), context)]
    for stream in streams:
        assert not (await anext(stream)).hello.role_state.is_leaving
    mailbox.receive(0.0)
    service.publish_role(service._roles.leave())
    await asyncio.sleep(0)  # lets the reader go through the orders
    service.publish({}, WorkerLoad(steps=7))
    service.finish()
    words = [[answer async for answer in stream] for stream in streams]
    assert all(heard[0].role_state.is_leaving for heard in words)
    assert [[answer.report.load.steps for answer in heard][-1] for heard in words] == [7, 7]
    (returned,) = (work for answer in words[0] for work in answer.report.returned)
    assert (returned.handoff_id, returned.code, returned.retryable) == ("late", "draining", True)
    assert "is leaving and takes no more work" in returned.message
    assert len(mailbox.receive(0.0)) == 4  # both halves drop the work of both routers, and no work came


async def test_router_that_reads_too_slowly_is_detached_and_costs_bounded_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(attach_service, "MAX_QUEUED_REPORTS", 8)
    service, mailbox = lone_service()
    context: Any = NoContext()
    stream = service.Attach(Orders(wire.router_hello_to_proto("slow")), context)
    assert (await anext(stream)).HasField("hello")
    for i in range(8):
        service.publish({}, WorkerLoad(steps=i))
    assert "does not read" not in caplog.text
    for i in range(100):
        service.publish({}, WorkerLoad(steps=i))
        assert service._routers["slow"].qsize() <= 8
    assert "router slow does not read its reports" in caplog.text
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert not service.is_attached()
    assert len(mailbox.receive(0.0)) == 3  # a snapshot of names when it came; both halves drop its work


async def test_refusals_that_nobody_reads_cost_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attach_service, "MAX_QUEUED_REPORTS", 8)
    service, _ = lone_service()
    context: Any = NoContext()
    stale = wire.assignment_to_proto(assignment("stale"), role_epoch=9)
    stream = service.Attach(Orders(wire.router_hello_to_proto("slow"), *[stale] * 20), context)
    assert (await anext(stream)).HasField("hello")
    await asyncio.sleep(0)  # lets the reader go through them
    assert service._routers["slow"].qsize() <= 8
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_reports_are_sent_in_order_and_load_goes_to_everybody() -> None:
    service, _ = lone_service()
    context: Any = NoContext()
    streams = {name: service.Attach(Orders(wire.router_hello_to_proto(name)), context) for name in ("a", "b")}
    for stream in streams.values():
        await anext(stream)
    tokens = [TokenEvent("h", position, 7) for position in range(3)]
    for event in tokens:
        service.publish({"a": StepReport(tokens=[event])}, WorkerLoad(steps=event.position))
    for name, stream in streams.items():
        reports = [wire.report_from_proto((await anext(stream)).report) for _ in tokens]
        assert [report.load.steps for report in reports] == [0, 1, 2]
        assert [report.runs for report in reports] == [[run_of(event)] if name == "a" else [] for event in tokens]
        await stream.aclose()
    assert not service.is_attached()


NAMES = tuple(bytes([number]) * 16 for number in range(70))


async def next_report(stream: Any) -> wire.StepReport:  # noqa: ANN401 - an async generator of protobuf messages
    return wire.report_from_proto((await anext(stream)).report)


async def test_router_hears_a_snapshot_then_events_and_asks_again_when_it_likes() -> None:
    service, mailbox = lone_service()
    context: Any = NoContext()
    stream = service.Attach(Orders(wire.router_hello_to_proto("a"), wire.kv_query_to_proto()), context)
    assert (await anext(stream)).HasField("hello")
    await asyncio.sleep(0)  # lets the reader take the question
    for call in mailbox.receive(0.0):
        call()
    events = KvEvents(0, NAMES[:2], NAMES[2:3])
    service.publish({}, WorkerLoad(), events)
    service.publish({}, WorkerLoad())
    await asyncio.sleep(0)  # lets the answers come
    reports = [await next_report(stream) for _ in range(4)]
    assert [report.kv_events for report in reports if report.kv_snapshot is None] == [events, None]
    assert [report.kv_snapshot for report in reports if report.kv_snapshot] == [KvSnapshot(0, (), is_last=True)] * 2
    await stream.aclose()


async def test_router_that_reads_slowly_is_sent_no_names_and_told_that_some_are_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attach_service, "MAX_QUEUED_EVENTS", 3)
    service, _ = lone_service()
    context: Any = NoContext()
    stream = service.Attach(Orders(wire.router_hello_to_proto("slow")), context)
    assert (await anext(stream)).HasField("hello")
    for i in range(5):
        service.publish({}, WorkerLoad(), KvEvents(i, (NAMES[i],)))
    heard = [(await next_report(stream)).kv_events for _ in range(5)]
    assert heard == [
        KvEvents(0, NAMES[:1]),
        KvEvents(1, NAMES[1:2]),
        KvEvents(2, NAMES[2:3]),
        KvEvents(4),
        KvEvents(5),
    ]
    await stream.aclose()


@pytest.mark.parametrize("num_names", [0, 1, 2, 3, 4, 5])
def test_snapshot_comes_in_parts_of_which_the_last_says_so(num_names: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_desk, "NAMES_PER_PART", 2)
    mailbox, parts = Mailbox(), list[KvSnapshot]()
    log = NameLog(lambda _: True, lambda: NAMES[:num_names])
    NameDesk(log, mailbox).ask(parts.extend)
    for call in mailbox.receive(0.0):
        call()
    assert [name for part in parts for name in part.names] == list(NAMES[:num_names])
    assert [part.is_last for part in parts] == [False] * (len(parts) - 1) + [True]
    assert all(len(part.names) <= 2 for part in parts)


def sent(num_handoffs: int) -> TransferReport:
    return TransferReport(sent=(PairReport(NOWHERE.worker, "push", PairStats(num_handoffs=num_handoffs)),))


async def test_transfers_are_sent_when_they_have_changed_and_to_a_router_that_comes_later() -> None:
    service, _ = lone_service()
    context: Any = NoContext()
    first, later = (service.Attach(Orders(wire.router_hello_to_proto(name)), context) for name in ("a", "b"))
    service.publish_transfers(TransferReport())
    assert (await anext(first)).HasField("hello")
    for num_handoffs in (1, 1, 2):
        service.publish_transfers(sent(num_handoffs))
    service.publish({}, WorkerLoad())
    heard = [await anext(first) for _ in range(3)]
    assert [transfer_wire.transfers_from_proto(message.transfers) for message in heard[:2]] == [sent(1), sent(2)]
    assert heard[2].HasField("report")
    assert (await anext(later)).HasField("hello")
    assert transfer_wire.transfers_from_proto((await anext(later)).transfers) == sent(2)
    for stream in (first, later):
        await stream.aclose()
