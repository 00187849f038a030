"""A source's orders over real gRPC to targets whose loop the test drives; bytes stay in the process."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
from baton.v1 import handoff_pb2_grpc

from core.clock import SystemClock
from core.errors import BatonError, CorruptKvError, HandoffError, PeerLostError, UnknownOutcomeError
from core.ids import WorkerEndpoint, WorkerId
from kvtransfer.memory import RankMemory
from kvtransfer.move import Digest, Direction, Move, MoveOutcome, OnMoved
from kvtransfer.port import Reservation
from tests.builders import PREFILL, assignment
from tests.worker.link_worlds import FAST, SLOW, TIMEOUT_S, End
from worker import handoff_client
from worker.handoff_client import GrpcHandoffPort
from worker.handoff_service import HandoffService
from worker.ways import Way

Heard = tuple[str, str, object]
DONE = MoveOutcome(None)
DIGESTS = (Digest(0, 3, 0, 1, 2**63), Digest(0, 5, 0, 1, 7))


class Source:
    """The source half's ear: notes every answer."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.errors: list[BatonError | None] = []

    def on_begun(self, handoff_id: str, reserved: Reservation) -> None:
        assert reserved.num_present == 0
        self.heard.append(("begun", handoff_id, list(reserved.block_ids)))

    def on_begin_refused(self, handoff_id: str, error: BatonError) -> None:
        self.heard.append(("refused", handoff_id, error.message))

    def on_written(self, handoff_id: str, write_id: int, outcome: MoveOutcome, ended_s: float) -> None:
        assert ended_s >= 0
        self.heard.append((f"written {write_id}", handoff_id, outcome.error and outcome.error.message))

    def on_finished(self, handoff_id: str, error: BatonError | None, acknowledged_s: float) -> None:
        assert acknowledged_s >= 0
        self.errors.append(error)
        self.heard.append(("finished", handoff_id, error and error.message))

    def on_leases_lost(self, handoff_ids: Sequence[str]) -> None:
        self.heard += [("lost", handoff_id, None) for handoff_id in handoff_ids]


class HeldMoves:
    """Keeps moves until the test ends them."""

    def __init__(self) -> None:
        self.held: list[tuple[Move, OnMoved]] = []

    def move(self, move: Move, on_moved: OnMoved) -> None:
        self.held.append((move, on_moved))

    def end(self, index: int = 0, outcome: MoveOutcome = DONE) -> None:
        self.held.pop(index)[1](outcome)


class Target(End):
    """The receiving end of one worker incarnation; its half moves when the test lets it."""

    def __init__(self, worker: WorkerId, neighbours: dict[WorkerId, RankMemory]) -> None:
        super().__init__(worker, neighbours)
        self.is_intact = True
        self.verified: list[Sequence[Digest]] = []
        handoffs = HandoffService(self.service._identity, self.mailbox, self.decode.receiver, self._verify)
        handoff_pb2_grpc.add_HandoffServiceServicer_to_server(handoffs, self.server)

    def _verify(self, digests: Sequence[Digest]) -> "Future[bool]":
        self.verified.append(digests)
        future: Future[bool] = Future()
        future.set_result(self.is_intact)
        return future

    def assign(self, handoff_id: str) -> None:
        self.decode.assign("router-1", replace(assignment(handoff_id), decode=self.endpoint))

    def pump(self) -> None:
        super().pump()
        self.decode.admit()
        self.pool.blocks.check()


class World:
    """One source and its targets."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._neighbours: dict[WorkerId, RankMemory] = {}
        self.source, self.here = Source(), End(PREFILL.worker, self._neighbours)
        self.peers = self.here.peers
        event_loop = asyncio.get_running_loop()
        self.moves = HeldMoves()
        self.corrupt: list[tuple[WorkerId, Collection[Way]]] = []
        self.port = GrpcHandoffPort(
            PREFILL.worker,
            self.peers,
            self.moves,
            self.here.mailbox,
            event_loop,
            SystemClock(),
            on_corrupt=lambda *found: self.corrupt.append(found),
        )
        self.port.bind(self.source)
        self.pumped: list[Target] = []

    async def target(self, worker: WorkerId, *, is_pumped: bool = True) -> Target:
        target = Target(worker, self._neighbours)
        await target.server.start()
        self._stack.push_async_callback(target.stop)
        if is_pumped:
            self.pumped.append(target)
        return target

    async def hear(self, num_answers: int = 1) -> list[Heard]:
        """The next answers, while pumped targets do their work."""
        await self.until(lambda: len(self.source.heard) >= num_answers)
        heard, self.source.heard = self.source.heard, []
        return heard

    async def until_connected(self, worker: WorkerId) -> None:
        await self.until(lambda: self.peers.connected(worker) is not None)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Lets everybody work until then."""
        async with asyncio.timeout(TIMEOUT_S):
            while not condition():
                self.turn()
                await asyncio.sleep(0)

    def turn(self) -> None:
        for target in self.pumped:
            target.pump()
        self.here.pump()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        world = World(stack)
        yield world
        await world.port.close()
        await world.here.stop()
        assert not world.port._calls


D1, D2 = WorkerId("decode-0", 1), WorkerId("decode-0", 2)


def move_to(endpoint: WorkerEndpoint) -> Move:
    return Move(endpoint.worker, Direction.WRITE, [5, 3], [0, 1])


async def begun(world: World, target: Target, handoff_id: str = "h") -> None:
    """The target has reserved two blocks."""
    target.assign(handoff_id)
    world.port.begin(handoff_id, target.endpoint, None)
    ((kind, _, block_ids),) = await world.hear()
    assert kind == "begun"
    assert len(block_ids) == 2  # type: ignore[arg-type]


async def test_begin_write_finish_are_each_answered_once(world: World) -> None:
    target = await world.target(D1)
    await begun(world, target)
    world.port.write("h", target.endpoint, 0, move_to(target.endpoint))
    assert world.moves.held[0][0] == move_to(target.endpoint)
    world.moves.end()
    assert await world.hear() == [("written 0", "h", None)]
    world.port.finish("h", target.endpoint, (7,), 2)
    assert await world.hear() == [("finished", "h", None)]
    assert target.decode.num_running == 1
    assert target.verified == []  # nothing came with it
    world.turn()
    assert world.source.heard == []


async def test_finish_commits_when_the_last_of_several_writes_has_ended(world: World) -> None:
    """They may end in any order; the loop of the source is not asked."""
    target = await world.target(D1)
    await begun(world, target)
    for write_id in range(3):
        world.port.write("h", target.endpoint, write_id, move_to(target.endpoint))
    world.moves.end(1, MoveOutcome(None, digests=DIGESTS[:1]))
    world.port.finish("h", target.endpoint, (7,), 2)
    world.moves.end(1)
    assert await world.hear(2) == [("written 1", "h", None), ("written 2", "h", None)]
    assert not world.port._calls
    world.moves.end(0, MoveOutcome(None, digests=DIGESTS[1:]))
    assert await world.hear(2) == [("written 0", "h", None), ("finished", "h", None)]
    assert target.decode.num_running == 1
    assert [list(digests) for digests in target.verified] == [list(DIGESTS)]
    assert len(world.port._open_moves) == 0


async def test_finish_after_a_write_that_failed_does_not_commit_and_waits_for_the_others(world: World) -> None:
    target = await world.target(D1)
    await begun(world, target)
    for write_id in range(2):
        world.port.write("h", target.endpoint, write_id, move_to(target.endpoint))
    world.moves.end(0, MoveOutcome(HandoffError("the link broke")))
    world.port.finish("h", target.endpoint, (7,), 2)
    assert await world.hear() == [("written 0", "h", "the link broke")]
    world.moves.end()
    assert await world.hear(2) == [("written 1", "h", None), ("finished", "h", "the link broke")]
    assert target.decode.num_running == 0
    assert len(world.port._open_moves) == 0


async def test_abort_after_a_write_that_failed_leaves_nothing(world: World) -> None:
    target = await world.target(D1)
    await begun(world, target)
    world.port.write("h", target.endpoint, 0, move_to(target.endpoint))
    world.moves.end(0, MoveOutcome(HandoffError("the link broke")))
    await world.hear()
    world.port.abort("h", target.endpoint)
    assert len(world.port._open_moves) == 0
    await world.until(lambda: target.pool.blocks.num_free == 16)


async def test_blocks_with_other_checksums_are_refused_and_peer_and_ways_are_named(world: World) -> None:
    target = await world.target(D1)
    target.is_intact = False
    await begun(world, target)
    for write_id in range(2):
        world.port.write("h", target.endpoint, write_id, move_to(target.endpoint))
    world.moves.end(0, MoveOutcome(None, digests=DIGESTS, transport=FAST))
    world.moves.end(0, MoveOutcome(None, transport=SLOW, direction=Direction.READ))
    world.port.finish("h", target.endpoint, (7,), 2)
    (*_, (kind, _, message)) = await world.hear(3)
    assert (kind, type(world.source.errors[0])) == ("finished", CorruptKvError)
    assert "other checksums here than it left with" in str(message)
    assert world.corrupt == [(D1, {Way(FAST, Direction.WRITE), Way(SLOW, Direction.READ)})]
    assert target.pool.blocks.num_free == 16


async def test_commit_refused_is_answered_with_the_reason(world: World) -> None:
    target = await world.target(D1)
    world.port.finish("nobody", target.endpoint, (7,), 2)
    ((kind, _, message),) = await world.hear()
    assert kind == "finished"
    assert "CANCELLED" in str(message)
    assert "not wanted here" in str(message)
    assert world.corrupt == []


async def test_commit_that_is_refused_or_not_sent_is_told_from_one_that_nobody_answered(world: World) -> None:
    """Only after the last the target may run the sequence."""
    target = await world.target(D1)
    await begun(world, target)
    world.port.finish("nobody", target.endpoint, (7,), 2)
    await world.hear()
    world.port.write("h", target.endpoint, 0, move_to(target.endpoint))
    world.moves.end(0, MoveOutcome(HandoffError("the link broke")))
    world.port.finish("h", target.endpoint, (7,), 2)
    await world.hear(2)
    await target.stop()
    world.port.finish("unheard", target.endpoint, (7,), 2)
    await world.hear()
    world.peers.worker_gone(D1)
    world.port.finish("dead", target.endpoint, (7,), 2)
    await world.hear()
    assert [type(error) for error in world.source.errors] == [
        HandoffError,
        HandoffError,
        UnknownOutcomeError,
        PeerLostError,
    ]


async def test_commit_to_a_target_that_is_replaced_meanwhile_has_an_unknown_outcome(world: World) -> None:
    hanging = await world.target(D1, is_pumped=False)
    world.port.finish("h", hanging.endpoint, (7,), 2)
    await world.until(lambda: hanging.mailbox._calls.qsize() > 0)
    world.peers.worker_gone(D1)
    ((kind, _, message),) = await world.hear()
    assert (kind, type(world.source.errors[0])) == ("finished", UnknownOutcomeError)
    assert "was replaced" in str(message)


async def test_wish_for_room_is_withdrawn_after_the_port_s_own_time(world: World) -> None:
    target = await world.target(D1)
    world.port._begin_timeout_s = 0.2
    world.port.begin("h", target.endpoint, 12)
    ((kind, _, message),) = await world.hear()
    assert kind == "refused"
    assert "DEADLINE_EXCEEDED" in str(message)
    await world.until(lambda: "h" in target.decode._book.ended)


async def test_begin_of_a_running_sequence_gets_the_blocks_it_asks_for(world: World) -> None:
    target = await world.target(D1)
    target.assign("h")
    world.port.begin("h", target.endpoint, 14)
    ((kind, _, block_ids),) = await world.hear()
    assert (kind, len(block_ids)) == ("begun", 4)  # type: ignore[arg-type]
    world.port.abort("h", target.endpoint)
    await world.until(lambda: target.pool.blocks.num_free == 16)


async def test_renewal_is_answered_with_what_is_lost(world: World) -> None:
    target = await world.target(D1)
    await begun(world, target)
    world.port.renew(target.endpoint, ["h"])
    world.port.renew(target.endpoint, ["gone", "h", "never"])
    assert await world.hear(2) == [("lost", "gone", None), ("lost", "never", None)]


async def test_renewal_that_fails_is_said_aloud_and_loses_nothing(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.port.renew(WorkerEndpoint(D1, "127.0.0.1:1"), ["h"])
    await world.until(lambda: "1 leases at worker decode-0@1 were not renewed" in caplog.text)
    world.turn()
    assert world.source.heard == []


async def test_peer_refuses_to_connect_the_next_call_tries_again(world: World) -> None:
    target = await world.target(D1)
    right = target.service._identity
    target.service._identity = replace(right, fingerprint="f2")
    for handoff_id in ("a", "b"):
        world.port.begin(handoff_id, target.endpoint, None)
    for kind, _, message in await world.hear(2):
        assert kind == "refused"
        assert "serves model f1" in str(message)
    target.service._identity = right
    target.assign("c")
    world.port.begin("c", target.endpoint, None)
    assert (await world.hear())[0][:2] == ("begun", "c")


async def test_newer_incarnation_ends_calls_that_wait_for_the_older(world: World) -> None:
    """A hanging worker is replaced while a begin waits there: the half must hear, or it keeps its blocks for ever."""
    hanging = await world.target(D1, is_pumped=False)
    world.port.begin("old", hanging.endpoint, None)
    await world.until_connected(D1)
    replacement = await world.target(D2)
    replacement.assign("new")
    world.port.begin("new", replacement.endpoint, None)
    heard = {handoff_id: (kind, answer) for kind, handoff_id, answer in await world.hear(2)}
    assert heard["new"][0] == "begun"
    kind, message = heard["old"]
    assert kind == "refused"
    assert "decode-0@1 was replaced" in str(message)
    assert world.peers.connected(D1) is None
    assert world.peers.connected(D2) is not None


async def test_newer_incarnation_ends_a_connection_that_is_being_made(world: World) -> None:
    """The older one's address takes connections and says nothing."""
    replacement = await world.target(D2)
    replacement.assign("new")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        world.port.begin("old", WorkerEndpoint(D1, f"127.0.0.1:{silent.getsockname()[1]}"), None)
        await world.until(lambda: D1 in world.peers._tasks)
        world.port.begin("new", replacement.endpoint, None)
        heard = {handoff_id: kind for kind, handoff_id, _ in await world.hear(2)}
    assert heard == {"old": "refused", "new": "begun"}


async def test_abort_frees_what_the_target_has_reserved(world: World) -> None:
    target = await world.target(D1)
    target.assign("h")
    world.port.begin("h", target.endpoint, None)
    await world.hear()
    assert target.pool.blocks.num_free == 14
    world.port.abort("h", target.endpoint)
    await world.until(lambda: target.pool.blocks.num_free == 16)
    assert world.source.heard == []


async def test_abort_and_renewal_need_no_transport(world: World) -> None:
    """A link that has failed for good must not keep the target's blocks from being freed."""
    target = await world.target(D1)
    await begun(world, target)
    for transport in (FAST, SLOW):
        world.peers.ban(D1, transport)
    with pytest.raises(HandoffError, match="no transport to worker decode-0@1 is left"):
        await world.peers.get(target.endpoint)
    world.port.renew(target.endpoint, ["h", "gone"])
    assert await world.hear() == [("lost", "gone", None)]
    world.port.abort("h", target.endpoint)
    await world.until(lambda: target.pool.blocks.num_free == 16)


async def test_abort_that_does_not_arrive_is_said_aloud_and_tried_until_the_target_is_dead(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(handoff_client, "ABORT_PAUSES_S", (0.0, 0.001))
    world.port.abort("h", WorkerEndpoint(D1, "127.0.0.1:1"))
    await world.until(lambda: "has not heard that handoff h ended" in caplog.text)
    await asyncio.sleep(0)
    assert world.port._calls
    world.peers.worker_gone(D1)
    await world.until(lambda: not world.port._calls)


async def test_abort_to_a_dead_worker_is_not_tried_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.peers.worker_gone(D1)
    world.port.abort("h", WorkerEndpoint(D1, "127.0.0.1:1"))
    await asyncio.sleep(0)
    await world.until(lambda: not world.port._calls)
    assert caplog.text == ""
    assert not world.peers._channels


async def test_close_gives_up_calls_under_way(world: World) -> None:
    hanging = await world.target(D1, is_pumped=False)
    world.port.begin("h", hanging.endpoint, None)
    await world.until_connected(D1)
    await world.port.close()
    assert not world.port._calls
    world.turn()
    assert world.source.heard == []
