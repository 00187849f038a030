"""A source's orders over real gRPC to targets whose loop the test drives; bytes stay in the process."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace

import grpc
import pytest
import torch
from baton.v1 import handoff_pb2_grpc

from core.clock import ManualClock, SystemClock
from core.errors import BatonError
from core.ids import WorkerEndpoint, WorkerId
from core.request import Role
from decode_worker.half import DecodeHalf
from engine.kv.pool import BlockPool
from engine.kv.progress import StepProgress
from engine.parallel.topology import ONE_RANK
from kvtransfer.carrier import Carrier
from kvtransfer.geometry import WorkerGeometry
from kvtransfer.group_mover import GroupMover
from kvtransfer.local_transport import LocalTransport
from kvtransfer.memory import RankMemory, memory_of
from kvtransfer.mover import BlockMover
from kvtransfer.port import FinishTimes, LastBlocks, Reservation
from tests.builders import PREFILL, ListOutbox, assignment, cost_model, small_pool
from worker import handoff_client
from worker.handoff_client import GrpcHandoffPort
from worker.handoff_service import HandoffService
from worker.identity import WorkerIdentity
from worker.mailbox import Mailbox
from worker.peers import Peers

TIMEOUT_S = 20.0
FINGERPRINT = "f1"
Heard = tuple[str, str, object]


class Source:
    """The source half's ear: notes every answer."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []

    def on_begun(self, handoff_id: str, reserved: Reservation) -> None:
        assert reserved.num_present == 0
        self.heard.append(("begun", handoff_id, list(reserved.block_ids)))

    def on_begin_refused(self, handoff_id: str, error: BatonError) -> None:
        self.heard.append(("refused", handoff_id, error.message))

    def on_written(self, handoff_id: str, error: BatonError | None, ended_s: float) -> None:
        assert ended_s >= 0
        self.heard.append(("written", handoff_id, error and error.message))

    def on_finished(self, handoff_id: str, error: BatonError | None, times: FinishTimes) -> None:
        assert 0 <= times.written_s <= times.acknowledged_s
        self.heard.append(("finished", handoff_id, error and error.message))


def mover_of(worker: WorkerId, pool: BlockPool, neighbours: dict[WorkerId, RankMemory]) -> GroupMover:
    """The mover of a worker of one rank."""
    geometry = WorkerGeometry(pool.layout, pool.layout.kv_heads, 1, 1, pool.num_blocks)
    memory = memory_of(pool)
    transports = {"local": LocalTransport(worker, memory, neighbours)}
    carrier = Carrier(transports, memory, geometry.rank(0), StepProgress(pool.layout.num_layers))
    return GroupMover([BlockMover(carrier, on_crash=pytest.fail)], geometry)


class Target:
    """The receiving end of one worker incarnation; its half moves when the test lets it."""

    def __init__(self, worker: WorkerId, neighbours: dict[WorkerId, RankMemory]) -> None:
        self.pool = small_pool(16)
        self.mailbox = Mailbox()
        self.decode = DecodeHalf(self.pool, ListOutbox(), ManualClock(), max_num_seqs=4)
        self.mover = mover_of(worker, self.pool, neighbours)
        self.server = grpc.aio.server()
        port = self.server.add_insecure_port("127.0.0.1:0")
        self.endpoint = WorkerEndpoint(worker, f"127.0.0.1:{port}")
        identity = WorkerIdentity(
            endpoint=self.endpoint,
            role=Role.DECODE,
            role_epoch=1,
            fingerprint=FINGERPRINT,
            layout=self.pool.layout,
            num_blocks=16,
            vocab_size=100,
            max_num_seqs=4,
            max_model_len=64,
            cost_model=cost_model(),
        )
        self.service = HandoffService(identity, self.mailbox, self.decode, self.mover)
        handoff_pb2_grpc.add_HandoffServiceServicer_to_server(self.service, self.server)

    def assign(self, handoff_id: str) -> None:
        self.decode.assign("router-1", replace(assignment(handoff_id), decode=self.endpoint))

    def pump(self) -> None:
        for call in self.mailbox.receive(0.0):
            call()
        self.decode.admit()
        self.pool.blocks.check()

    async def stop(self) -> None:
        await self.server.stop(grace=None)
        self.mover.close()


class World:
    """One source and its targets."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._neighbours: dict[WorkerId, RankMemory] = {}
        self.pool = small_pool(16)
        self.source, self.mailbox = Source(), Mailbox()
        self.mover = mover_of(PREFILL.worker, self.pool, self._neighbours)
        self.peers = Peers(PREFILL.worker, FINGERPRINT, self.pool.layout, ONE_RANK, self.mover)
        event_loop = asyncio.get_running_loop()
        self.port = GrpcHandoffPort(PREFILL.worker, self.peers, self.mover, self.mailbox, event_loop, SystemClock())
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
        await self.until(lambda: worker in self.peers._peers and self.peers._peers[worker].done())

    async def until(self, condition: Callable[[], bool]) -> None:
        """Lets everybody work until then."""
        async with asyncio.timeout(TIMEOUT_S):
            while not condition():
                self.turn()
                await asyncio.sleep(0)

    def turn(self) -> None:
        for target in self.pumped:
            target.pump()
        for call in self.mailbox.receive(0.0):
            call()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        world = World(stack)
        yield world
        await world.port.close()
        await world.peers.close()
        world.mover.close()
        assert not world.port._calls


D1, D2 = WorkerId("decode-0", 1), WorkerId("decode-0", 2)


async def test_begin_write_commit_are_each_answered_once(world: World) -> None:
    target = await world.target(D1)
    world.pool.tensor.normal_()
    target.assign("h")
    world.port.begin("h", target.endpoint)
    ((_, _, block_ids),) = await world.hear()
    assert isinstance(block_ids, list)
    world.port.write("h", target.endpoint, [5, 3], block_ids)
    assert await world.hear() == [("written", "h", None)]
    assert torch.equal(target.pool.tensor[block_ids], world.pool.tensor[[5, 3]])
    world.port.finish("h", target.endpoint, LastBlocks([], [], 7, 2))
    assert await world.hear() == [("finished", "h", None)]
    assert target.decode.num_running == 1
    world.turn()
    assert world.source.heard == []


async def test_finish_writes_the_last_blocks_before_it_commits(world: World) -> None:
    target = await world.target(D1)
    world.pool.tensor.normal_()
    target.assign("h")
    world.port.begin("h", target.endpoint)
    ((_, _, block_ids),) = await world.hear()
    assert isinstance(block_ids, list)
    world.port.finish("h", target.endpoint, LastBlocks([5, 3], block_ids, 7, 2))
    assert await world.hear() == [("finished", "h", None)]
    assert torch.equal(target.pool.tensor[block_ids], world.pool.tensor[[5, 3]])
    assert target.decode.num_running == 1


async def test_finish_whose_write_fails_does_not_commit(world: World) -> None:
    target = await world.target(D1)
    target.assign("h")
    world.port.begin("h", target.endpoint)
    ((_, _, block_ids),) = await world.hear()
    assert isinstance(block_ids, list)
    world.mover.remove_peer(D1)
    world.port.finish("h", target.endpoint, LastBlocks([5, 3], block_ids, 7, 2))
    ((kind, _, message),) = await world.hear()
    assert kind == "finished"
    assert "not connected" in str(message)
    assert target.decode.num_running == 0


async def test_commit_refused_is_answered_with_the_reason(world: World) -> None:
    target = await world.target(D1)
    world.port.finish("nobody", target.endpoint, LastBlocks([], [], 7, 2))
    ((kind, _, message),) = await world.hear()
    assert kind == "finished"
    assert "CANCELLED" in str(message)
    assert "not wanted here" in str(message)


async def test_write_to_a_stranger_is_answered_with_the_reason(world: World) -> None:
    world.port.write("h", WorkerEndpoint(D1, "127.0.0.1:1"), [1], [1])
    ((kind, _, message),) = await world.hear()
    assert kind == "written"
    assert "decode-0@1 is not connected" in str(message)


async def test_failed_write_has_the_next_handoff_connect_anew(world: World) -> None:
    target = await world.target(D1)
    for handoff_id in ("a", "b"):
        target.assign(handoff_id)
    world.port.begin("a", target.endpoint)
    ((_, _, block_ids),) = await world.hear()
    assert isinstance(block_ids, list)
    world.mover.remove_peer(D1)  # as after a link that failed
    world.port.write("a", target.endpoint, [1, 2], block_ids)
    assert "not connected" in str((await world.hear())[0][2])
    await world.until(lambda: D1 not in world.peers._peers)
    world.port.begin("b", target.endpoint)
    ((_, _, block_ids),) = await world.hear()
    assert isinstance(block_ids, list)
    world.port.write("b", target.endpoint, [1, 2], block_ids)
    assert await world.hear() == [("written", "b", None)]


async def test_peer_refuses_to_connect_the_next_call_tries_again(world: World) -> None:
    target = await world.target(D1)
    right = target.service._identity
    target.service._identity = replace(right, fingerprint="f2")
    for handoff_id in ("a", "b"):
        world.port.begin(handoff_id, target.endpoint)
    for kind, _, message in await world.hear(2):
        assert kind == "refused"
        assert "serves model f1" in str(message)
    target.service._identity = right
    target.assign("c")
    world.port.begin("c", target.endpoint)
    assert (await world.hear())[0][:2] == ("begun", "c")


async def test_newer_incarnation_ends_calls_that_wait_for_the_older(world: World) -> None:
    """A hanging worker is replaced while a begin waits there: the half must hear, or it keeps its blocks for ever."""
    hanging = await world.target(D1, is_pumped=False)
    world.port.begin("old", hanging.endpoint)
    await world.until_connected(D1)
    replacement = await world.target(D2)
    replacement.assign("new")
    world.port.begin("new", replacement.endpoint)
    heard = {handoff_id: (kind, answer) for kind, handoff_id, answer in await world.hear(2)}
    assert heard["new"][0] == "begun"
    kind, message = heard["old"]
    assert kind == "refused"
    assert "decode-0@1 was replaced" in str(message)
    assert set(world.peers._peers) == {D2}


async def test_newer_incarnation_ends_a_connection_that_is_being_made(world: World) -> None:
    """The older one's address takes connections and says nothing."""
    replacement = await world.target(D2)
    replacement.assign("new")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        world.port.begin("old", WorkerEndpoint(D1, f"127.0.0.1:{silent.getsockname()[1]}"))
        await world.until(lambda: D1 in world.peers._peers)
        world.port.begin("new", replacement.endpoint)
        heard = {handoff_id: kind for kind, handoff_id, _ in await world.hear(2)}
    assert heard == {"old": "refused", "new": "begun"}


async def test_abort_frees_what_the_target_has_reserved(world: World) -> None:
    target = await world.target(D1)
    target.assign("h")
    world.port.begin("h", target.endpoint)
    await world.hear()
    assert target.pool.blocks.num_free == 14
    world.port.abort("h", target.endpoint)
    await world.until(lambda: target.pool.blocks.num_free == 16)
    assert world.source.heard == []


async def test_abort_that_never_arrives_is_said_aloud(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(handoff_client, "ABORT_TRIES", 1)
    world.port.abort("h", WorkerEndpoint(D1, "127.0.0.1:1"))
    await world.until(lambda: "did not hear that handoff h ended" in caplog.text)


async def test_close_gives_up_calls_under_way(world: World) -> None:
    hanging = await world.target(D1, is_pumped=False)
    world.port.begin("h", hanging.endpoint)
    await world.until_connected(D1)
    await world.port.close()
    assert not world.port._calls
    world.turn()
    assert world.source.heard == []
