"""Links between two workers over real gRPC: what they agree on, what happens when a transport fails, reads."""

import asyncio
import socket
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import AsyncExitStack
from dataclasses import replace

import grpc
import pytest
import torch
from baton.v1 import handoff_pb2_grpc

from core.errors import HandoffError, IncompatibleLayoutError, PeerLostError
from core.ids import WorkerEndpoint, WorkerId
from core.transfers import PairStats
from kvtransfer.group_mover import PeerLink
from kvtransfer.move import Direction, Move, MoveOutcome
from tests.builders import assignment
from tests.worker.link_worlds import FAST, LAYOUT, SLOW, End, LinkWorld, write
from worker import link_wire
from worker.exclusions import FIRST_PAUSE_S
from worker.read_order import ReadAnswer, ReadOrder
from worker.transfer_log import TransferCounts
from worker.ways import Way, way_of

PUSHED_FAST = Way(FAST, Direction.WRITE)


@pytest.fixture
async def world() -> AsyncIterator[LinkWorld]:
    async with AsyncExitStack() as stack:
        yield LinkWorld(stack)


def has_moved(source: End, target: End) -> bool:
    return torch.equal(target.pool.tensor[[1, 2]], source.pool.tensor[[5, 3]])


async def pair(world: LinkWorld, **source: object) -> tuple[End, End]:
    """A source with random KV that is connected to a target."""
    ends = await world.end("prefill-0", **source), await world.end("decode-0")
    ends[0].pool.tensor.normal_()
    await ends[0].peers.get(ends[1].endpoint)
    return ends


# --- agreeing


async def test_first_transport_that_both_have_is_agreed_on(world: LinkWorld) -> None:
    source = await world.end("prefill-0", transports=[FAST, SLOW])
    for name, transports, agreed in (("d0", [SLOW, FAST], FAST), ("d1", [SLOW], SLOW)):
        peer = await source.peers.get((await world.end(name, transports=transports)).endpoint)
        assert (peer.transport, peer.path) == (agreed, "memory")


@pytest.mark.parametrize(
    ("target", "kind", "reason"),
    [
        ({"transports": ["other"]}, HandoffError, "prefill-0@1 offers fast, slow, here there is other"),
        ({"fingerprint": "f2"}, HandoffError, "prefill-0@1 serves model f1, decode-0@1 serves f2"),
        ({"layout": replace(LAYOUT, dtype="float16")}, IncompatibleLayoutError, "dtype is float16 here and float32"),
        ({"layout": replace(LAYOUT, num_layers=3)}, IncompatibleLayoutError, "num_layers is 3 here and 2 there"),
        ({"layout": replace(LAYOUT, head_dim=4)}, IncompatibleLayoutError, "head_dim is 4 here and 2 there"),
        ({"layout": replace(LAYOUT, kv_heads=1)}, IncompatibleLayoutError, "KV heads is 1 here and 2 there"),
        ({"layout": replace(LAYOUT, block_tokens=6)}, IncompatibleLayoutError, "of 6 tokens here and of 4 there"),
    ],
)
async def test_peer_that_cannot_be_reconciled_refuses_with_both_values(
    world: LinkWorld, target: dict[str, object], kind: type[HandoffError], reason: str
) -> None:
    source = await world.end("prefill-0")
    endpoint = (await world.end("decode-0", **target)).endpoint
    with pytest.raises(HandoffError, match=reason) as caught:
        await source.peers.get(endpoint)
    assert type(caught.value) is kind
    assert source.peers.connected(endpoint.worker) is None


async def test_other_incarnation_at_the_address_is_not_connected(world: LinkWorld) -> None:
    source, target = await world.end("prefill-0"), await world.end("decode-0", incarnation=2)
    with pytest.raises(PeerLostError, match="worker decode-0@1 is gone; this is decode-0@2"):
        await source.peers.get(WorkerEndpoint(WorkerId("decode-0", 1), target.endpoint.address))


async def test_transport_that_does_not_connect_is_left_for_the_next(world: LinkWorld) -> None:
    source, target = await world.end("prefill-0"), await world.end("decode-0")
    source.transports[FAST].add_errors.append(HandoffError("no route"))
    assert (await source.peers.get(target.endpoint)).transport == SLOW
    assert (await world.moved(source, write(target))).error is None


async def test_peer_that_no_transport_reaches_is_refused_until_one_may_be_tried_again(world: LinkWorld) -> None:
    source, target = await world.end("prefill-0"), await world.end("decode-0")
    for transport in source.transports.values():
        transport.add_errors.append(HandoffError("no route"))
    with pytest.raises(HandoffError, match="no route"):
        await source.peers.get(target.endpoint)
    with pytest.raises(HandoffError, match="no transport to worker decode-0@1 is left: fast, slow failed"):
        await source.peers.get(target.endpoint)
    source.clock.advance(FIRST_PAUSE_S)
    assert (await source.peers.get(target.endpoint)).transport == FAST


async def test_connecting_has_one_deadline_over_all_transports(
    world: LinkWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = await world.end("prefill-0"), await world.end("decode-0")
    monkeypatch.setattr("worker.peers.CONNECTING_S", 0.02)
    monkeypatch.setattr(source.mover, "add_peer", lambda *_: Future())
    with pytest.raises(HandoffError, match=r"decode-0@1 was not connected within 0\.02 s"):
        await source.peers.get(target.endpoint)
    assert source.peers.connected(target.worker) is None


async def test_calls_for_one_peer_share_a_connection(world: LinkWorld) -> None:
    source, target = await world.end("prefill-0"), await world.end("decode-0")
    first, second = await asyncio.gather(source.peers.get(target.endpoint), source.peers.get(target.endpoint))
    assert first is second


# --- failing and trying again


async def test_move_that_fails_is_tried_once_more_over_another_transport(world: LinkWorld) -> None:
    source, target = await pair(world)
    source.transports[FAST].post_errors.append(HandoffError("the link is down"))
    outcome = await world.moved(source, write(target))
    assert outcome.error is None
    assert has_moved(source, target)
    assert source.transports[SLOW].posted
    (report,) = source.links.report(TransferCounts({target.worker: PairStats(num_handoffs=3)}, {})).sent
    assert (report.peer, report.direction) == (target.worker, "push")
    assert report.stats == PairStats(transport=SLOW, path="memory", num_handoffs=3, num_retried=1)


async def test_transport_that_failed_is_taken_again_after_a_while(world: LinkWorld) -> None:
    source, target = await pair(world)
    source.transports[FAST].post_errors.append(HandoffError("the link is down"))
    await world.moved(source, write(target))
    assert (await source.peers.get(target.endpoint)).transport == SLOW
    source.clock.advance(FIRST_PAUSE_S)
    assert (await source.peers.get(target.endpoint)).transport == FAST
    assert (await world.moved(source, write(target))).error is None
    assert source.transports[FAST].posted


async def test_moves_that_fail_together_go_over_one_new_connection(world: LinkWorld) -> None:
    source, target = await pair(world)
    source.transports[FAST].post_errors.extend([HandoffError("down")] * 2)
    outcomes = await asyncio.gather(*(world.moved(source, write(target)) for _ in range(2)))
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert (await source.peers.get(target.endpoint)).transport == SLOW


async def test_move_that_fails_over_both_transports_fails_and_so_does_the_next_connection(world: LinkWorld) -> None:
    source, target = await pair(world)
    for transport in source.transports.values():
        transport.post_errors.append(HandoffError("the link is down"))
    outcome = await world.moved(source, write(target))
    assert str(outcome.error) == "the link is down"
    with pytest.raises(HandoffError, match="no transport to worker decode-0@1 is left"):
        await source.peers.get(target.endpoint)
    after = await world.moved(source, write(target))
    assert "no transport to worker decode-0@1 is left" in str(after.error)


async def test_move_without_another_transport_fails_with_both_reasons(world: LinkWorld) -> None:
    source, target = await pair(world, transports=[FAST])
    source.transports[FAST].post_errors.append(HandoffError("the link is down"))
    error = str((await world.moved(source, write(target))).error)
    assert "the link is down; it is not tried again: no transport to worker decode-0@1 is left: fast failed" in error
    source.clock.advance(FIRST_PAUSE_S)
    await source.peers.get(target.endpoint)
    assert (await world.moved(source, write(target))).error is None


@pytest.mark.parametrize("error", [PeerLostError("dead"), IncompatibleLayoutError("shapes")])
async def test_move_that_no_other_transport_would_help_is_not_tried_again(
    world: LinkWorld, error: HandoffError
) -> None:
    source, target = await pair(world)
    source.transports[FAST].post_errors.append(error)
    assert (await world.moved(source, write(target))).error is error
    assert not source.transports[SLOW].posted
    assert (await source.peers.get(target.endpoint)).transport == FAST


async def test_move_to_a_stranger_fails(world: LinkWorld) -> None:
    source, target = await world.end("prefill-0"), await world.end("decode-0")
    error = (await world.moved(source, write(target))).error
    assert "worker decode-0@1 has never been connected" in str(error)


async def test_path_that_brought_wrong_kv_is_never_used_again(world: LinkWorld) -> None:
    source, target = await pair(world)
    for _ in range(2):  # several handoffs were under way over it
        source.links.exclude(target.worker, {PUSHED_FAST})
        source.clock.advance(1e6)
        assert (await source.peers.get(target.endpoint)).transport == SLOW
    source.links.exclude(target.worker, {Way(SLOW, Direction.WRITE)})
    source.clock.advance(1e6)
    with pytest.raises(HandoffError, match="no transport to worker decode-0@1 is left"):
        await source.peers.get(target.endpoint)


async def test_path_that_brought_wrong_kv_before_its_link_was_given_up_is_never_used_again(world: LinkWorld) -> None:
    source, target = await pair(world)
    source.peers.forget(target.worker)
    source.links.exclude(target.worker, {PUSHED_FAST})
    assert (await source.peers.get(target.endpoint)).transport == SLOW


async def test_path_that_brought_wrong_kv_while_it_is_made_anew_is_left_for_another(
    world: LinkWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = await pair(world)
    source.peers.forget(target.worker)
    add = source.peers._add

    async def add_late(worker: WorkerId, link: PeerLink) -> str:
        path = await add(worker, link)
        source.links.exclude(target.worker, {PUSHED_FAST})
        return path

    monkeypatch.setattr(source.peers, "_add", add_late)
    assert (await source.peers.get(target.endpoint)).transport == SLOW


async def test_outcome_names_the_transport_that_the_move_went_over(world: LinkWorld) -> None:
    source, target = await pair(world)
    assert (await world.moved(source, write(target))).transport == FAST
    source.transports[FAST].post_errors.append(HandoffError("the link is down"))
    assert (await world.moved(source, write(target))).transport == SLOW


async def test_move_that_finds_no_link_is_not_one_that_was_tried_again(
    world: LinkWorld, caplog: pytest.LogCaptureFixture
) -> None:
    source, target = await pair(world)
    source.peers.forget(target.worker)
    outcome = await world.moved(source, write(target))
    assert (outcome.error, outcome.transport) == (None, FAST)
    assert "tried again" not in caplog.text
    (report,) = source.links.report(TransferCounts({target.worker: PairStats()}, {})).sent
    assert report.stats.num_retried == 0


async def test_move_that_had_to_connect_first_is_tried_once_more_as_well(world: LinkWorld) -> None:
    source, target = await pair(world)
    source.peers.forget(target.worker)
    source.transports[FAST].post_errors.append(HandoffError("the link is down"))
    outcome = await world.moved(source, write(target))
    assert (outcome.error, outcome.transport) == (None, SLOW)


# --- the dead


async def test_worker_that_is_gone_is_refused_at_once_and_its_next_incarnation_is_not(world: LinkWorld) -> None:
    source, target = await pair(world)
    for _ in range(2):
        source.peers.worker_gone(target.worker)
    with pytest.raises(PeerLostError, match="worker decode-0@1 is dead"):
        await source.peers.get(target.endpoint)
    assert isinstance((await world.moved(source, write(target))).error, PeerLostError)
    assert (await source.peers.get((await world.end("decode-0", incarnation=2)).endpoint)).transport == FAST


async def test_newer_incarnation_says_that_the_earlier_is_dead(world: LinkWorld) -> None:
    source, old = await pair(world)
    await source.peers.get((await world.end("decode-0", incarnation=2)).endpoint)
    with pytest.raises(PeerLostError, match="worker decode-0@1 is dead"):
        await source.peers.get(old.endpoint)


async def test_move_that_waits_for_a_connection_ends_when_the_peer_is_dead(world: LinkWorld) -> None:
    """Its address takes connections and says nothing."""
    source, target = await pair(world)
    source.transports[FAST].post_errors.append(HandoffError("the link is down"))
    await target.server.stop(None)
    with socket.create_server(("127.0.0.1", int(target.endpoint.address.rpartition(":")[2]))):
        outcomes: list[MoveOutcome] = []
        source.links.move(write(target), outcomes.append)
        await world.until(lambda: source.peers.connected(target.worker) is None and bool(source.peers._tasks))
        source.peers.worker_gone(target.worker)
        await world.until(lambda: bool(outcomes))
    assert isinstance(outcomes[0].error, PeerLostError)


async def test_late_introduction_of_a_dead_source_is_refused(world: LinkWorld) -> None:
    old, new = await world.end("prefill-0"), await world.end("prefill-0", incarnation=2)
    target = await world.end("decode-0")
    await new.peers.get(target.endpoint)
    with pytest.raises(PeerLostError, match="worker prefill-0@1 is dead"):
        await old.peers.get(target.endpoint)


# --- pulling


async def reserve(world: LinkWorld, source: End, target: End) -> list[int]:
    """Blocks of the target for two blocks of handoff h."""
    work = replace(assignment("h", num_prompt_tokens=8), prefill=source.endpoint, decode=target.endpoint)
    target.decode.assign("router-1", work)
    reserved: list[object] = []
    target.decode.receiver.begin("h", source.worker, None, reserved.append)
    target.decode.admit()
    await world.until(lambda: bool(reserved))
    return list(reserved[0].block_ids)  # type: ignore[attr-defined]


async def test_pulled_blocks_are_read_by_the_target(world: LinkWorld) -> None:
    source, target = await pair(world, is_pulled=True)
    block_ids = await reserve(world, source, target)
    outcome = await world.moved(source, write(target, remote_ids=block_ids))
    assert outcome.error is None
    assert outcome.num_bytes == 2 * LAYOUT.block_bytes
    assert torch.equal(target.pool.tensor[block_ids], source.pool.tensor[[5, 3]])
    assert target.transports[FAST].posted == [Direction.READ] * len(target.transports[FAST].posted)
    assert not source.transports[FAST].posted
    (report,) = source.links.report(TransferCounts({target.worker: PairStats()}, {})).sent
    assert (report.direction, report.stats.transport, report.stats.path) == ("pull", FAST, "memory")


async def test_read_counts_as_inbound_at_its_source_until_it_is_answered(
    world: LinkWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = await pair(world, is_pulled=True)
    await reserve(world, source, target)
    may_end, read = asyncio.Event(), target.reads.read

    async def read_later(order: ReadOrder) -> ReadAnswer:
        await may_end.wait()
        return await read(order)

    monkeypatch.setattr(target.reads, "read", read_later)
    moving = asyncio.create_task(world.moved(source, write(target)))
    await world.until(lambda: source.inbound == [1])
    may_end.set()
    await moving
    assert source.inbound == [1, 0]


async def test_blocks_of_no_handoff_are_pushed(world: LinkWorld) -> None:
    source, target = await pair(world, is_pulled=True)
    assert (await world.moved(source, write(target, handoff_id=""))).error is None
    assert has_moved(source, target)
    assert not target.transports[FAST].posted


async def test_blocks_that_are_not_reserved_for_the_handoff_are_not_read_into(world: LinkWorld) -> None:
    source, target = await pair(world, is_pulled=True)
    block_ids = await reserve(world, source, target)
    others = [block_id for block_id in range(8) if block_id not in block_ids][:2]
    for changes in ({"remote_ids": others}, {"remote_ids": block_ids, "handoff_id": "g"}):
        error = (await world.moved(source, write(target, **changes))).error
        assert "are not reserved for handoff" in str(error)
    target.decode.cancel("h")  # quarantined now: this source may still write them, but it is of no use
    error = (await world.moved(source, write(target, remote_ids=block_ids))).error
    assert "are not reserved for handoff h" in str(error)
    assert not target.transports[FAST].posted


async def test_blocks_reserved_for_another_source_are_not_read_into(world: LinkWorld) -> None:
    source, target = await pair(world, is_pulled=True)
    other = await world.end("prefill-1")
    block_ids = await reserve(world, other, target)
    error = (await world.moved(source, write(target, remote_ids=block_ids))).error
    assert "are not reserved for handoff h from prefill-0@1" in str(error)


async def test_read_that_fails_is_tried_over_another_transport_by_the_target(world: LinkWorld) -> None:
    source, target = await pair(world, is_pulled=True)
    block_ids = await reserve(world, source, target)
    target.transports[FAST].post_errors.append(HandoffError("the link is down"))
    outcome = await world.moved(source, write(target, remote_ids=block_ids))
    assert outcome.error is None
    (report,) = source.links.report(TransferCounts({target.worker: PairStats()}, {})).sent
    assert (report.stats.transport, report.stats.num_retried) == (SLOW, 1)


async def test_kv_that_the_target_cannot_read_is_pushed_with_one_line_in_the_log(
    world: LinkWorld, caplog: pytest.LogCaptureFixture
) -> None:
    source, target = await pair(world, is_pulled=True)
    block_ids = await reserve(world, source, target)
    target.transports[FAST].post_errors.append(IncompatibleLayoutError("other shapes"))
    for _ in range(2):
        assert (await world.moved(source, write(target, remote_ids=block_ids))).error is None
    assert set(source.transports[FAST].posted) == {Direction.WRITE}
    assert caplog.text.count("worker decode-0@1 cannot read, so its KV is pushed: other shapes") == 1
    (report,) = source.links.report(TransferCounts({target.worker: PairStats()}, {})).sent
    assert report.direction == "push"


async def test_way_that_brought_wrong_kv_is_left_for_a_push(world: LinkWorld) -> None:
    source, target = await pair(world, is_pulled=True)
    block_ids = await reserve(world, source, target)
    outcome = await world.moved(source, write(target, remote_ids=block_ids))
    pulled = way_of(outcome)
    assert pulled == Way(FAST, Direction.READ)
    for _ in range(2):  # several handoffs were under way over it
        source.links.exclude(target.worker, {pulled})
    assert way_of(await world.moved(source, write(target, remote_ids=block_ids))) == PUSHED_FAST
    assert set(source.transports[FAST].posted) == {Direction.WRITE}
    source.links.exclude(target.worker, {PUSHED_FAST})
    assert (await source.peers.get(target.endpoint)).transport == SLOW


async def test_pull_waits_for_the_step_that_writes_the_blocks(world: LinkWorld) -> None:
    source, target = await pair(world, is_pulled=True)
    block_ids = await reserve(world, source, target)
    moving = asyncio.create_task(world.moved(source, write(target, remote_ids=block_ids, final_after_step=1)))
    source.progress.begin()
    source.progress.end()  # on rank 0; other ranks may not be so far
    await asyncio.sleep(0.01)
    assert not target.transports[FAST].posted
    source.progress.settle()
    assert (await moving).error is None


async def test_pulled_blocks_come_with_the_digests_of_the_source(world: LinkWorld) -> None:
    source, target = await pair(world, is_pulled=True)
    block_ids = await reserve(world, source, target)
    outcome = await world.moved(source, write(target, remote_ids=block_ids, digest_every=1))
    assert [digest.block_id for digest in outcome.digests] == block_ids
    assert await asyncio.wrap_future(target.mover.verify(outcome.digests))
    target.pool.tensor[block_ids[1]] += 1
    assert not await asyncio.wrap_future(target.mover.verify(outcome.digests))


async def test_read_asked_for_twice_is_carried_out_once(world: LinkWorld) -> None:
    source, target = await pair(world)
    block_ids = await reserve(world, source, target)
    order = ReadOrder("1", "h", source.endpoint, target.worker, (5, 3), tuple(block_ids), skip_tokens=0)
    async with grpc.aio.insecure_channel(target.endpoint.address) as channel:
        stub = handoff_pb2_grpc.LinkServiceStub(channel)
        request = link_wire.read_order_to_proto(order)
        calls = [asyncio.ensure_future(stub.ReadBlocks(request)) for _ in range(2)]
        await world.until(lambda: all(call.done() for call in calls))
        num_posted = len(target.transports[FAST].posted)
        late = await stub.ReadBlocks(request)
        answers = [link_wire.read_answer_from_proto(answer) for answer in [*(call.result() for call in calls), late]]
    assert [answer.outcome.error for answer in answers] == [None] * 3
    assert len(target.transports[FAST].posted) == num_posted > 0


async def test_read_of_no_blocks_is_refused(world: LinkWorld) -> None:
    source, target = await pair(world)
    await reserve(world, source, target)
    for read_id, source_ids in (("1", ()), ("2", (5,))):
        order = ReadOrder(read_id, "h", source.endpoint, target.worker, source_ids, (), skip_tokens=0)
        answer = await target.reads.read(order)
        assert str(answer.outcome.error) == f"read {read_id} names no blocks; nothing is read"


async def test_read_that_fails_by_a_defect_is_answered(
    world: LinkWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source, target = await pair(world, is_pulled=True)
    block_ids = await reserve(world, source, target)

    def defect(*_: object) -> None:
        raise KeyError("defect")

    monkeypatch.setattr(target.mover, "move", defect)
    outcome = await world.moved(source, write(target, remote_ids=block_ids))
    assert str(outcome.error) == "read 1 failed at its target: KeyError('defect')"
    assert "failed by a defect" in caplog.text


async def test_oldest_read_that_has_ended_is_forgotten_when_an_older_one_is_under_way(
    world: LinkWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.reads.MAX_REMEMBERED", 2)
    source, target = await pair(world)
    open_order = ReadOrder("open", "h", source.endpoint, target.worker, (5,), (1,), skip_tokens=0)
    reading = asyncio.create_task(target.reads.read(open_order))
    await asyncio.sleep(0)  # it waits for the worker's loop, which hangs
    for number in range(4):
        await target.reads.read(replace(open_order, read_id=str(number), target_ids=()))
    assert [read_id for _, read_id in target.reads._reads] == ["open", "3"]
    await world.until(reading.done)


async def test_read_for_another_incarnation_ends_as_lost(world: LinkWorld) -> None:
    """Another process listens where the target did."""
    source, target = await pair(world, is_pulled=True)
    target.service._identity = replace(
        target.service._identity, endpoint=replace(target.endpoint, worker=WorkerId("decode-0", 2))
    )
    outcome = await world.moved(source, write(target))
    assert isinstance(outcome.error, PeerLostError)


async def test_lost_answer_is_asked_for_again(world: LinkWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.pulling.RETRY_S", 0.001)
    source, target = await pair(world, is_pulled=True)
    block_ids = await reserve(world, source, target)
    read, num_lost = target.reads.read, 0

    async def lose_first(order: ReadOrder) -> object:
        nonlocal num_lost
        answer = await read(order)
        if num_lost < 2:
            num_lost += 1
            raise ConnectionError("the answer gets lost")
        return answer

    monkeypatch.setattr(target.reads, "read", lose_first)
    outcome = await world.moved(source, write(target, remote_ids=block_ids))
    assert outcome.error is None
    assert num_lost == 2
    num_posts = len(target.transports[FAST].posted)
    assert outcome.num_descriptors >= num_posts > 0


async def test_read_by_a_worker_that_is_known_to_be_dead_ends_as_lost(world: LinkWorld) -> None:
    source, target = await pair(world, is_pulled=True)
    await reserve(world, source, target)
    outcomes: list[MoveOutcome] = []
    source.links.move(write(target), outcomes.append)
    await world.until(lambda: bool(target.reads._reads), is_pumped=False)
    source.peers.worker_gone(target.worker)
    await world.until(lambda: bool(outcomes), is_pumped=False)
    assert isinstance(outcomes[0].error, PeerLostError)


async def test_reader_that_cannot_be_reached_before_it_was_asked_is_a_failure_at_once(world: LinkWorld) -> None:
    source, target = await world.end("prefill-0", is_pulled=True), await world.end("decode-0")
    move = Move(target.worker, Direction.WRITE, [5], [1], handoff_id="h")
    assert "has never been connected" in str((await world.moved(source, move)).error)
