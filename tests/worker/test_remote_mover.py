"""Leader and follower over real gRPC: orders, answers, and how each notices that the other is dead."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future

import grpc
import pytest
from baton.v1 import rank_pb2_grpc

from core.errors import HandoffError, UnavailableError
from core.ids import WorkerId
from kvtransfer.rank_mover import OnWritten
from worker import remote_mover
from worker.rank_channel import SERVER_OPTIONS
from worker.rank_service import RankService
from worker.remote_mover import RemoteMover

PEER = WorkerId("decode-0/1", 3)
TIMEOUT_S = 20.0


class NotingMover:
    """A rank's end of the transfer plane that notes its orders; writes to block 0 fail."""

    def __init__(self) -> None:
        self.orders: list[tuple[object, ...]] = []

    def metadata(self) -> bytes:
        return b"how to write here"

    def add_peer(self, peer: WorkerId, metadata: bytes) -> "Future[None]":
        self.orders.append(("add", peer, metadata))
        future: Future[None] = Future()
        if metadata == b"wrong":
            future.set_exception(HandoffError("wrong metadata"))
        else:
            future.set_result(None)
        return future

    def remove_peer(self, peer: WorkerId) -> None:
        self.orders.append(("remove", peer))

    def write(self, peer: WorkerId, local: Sequence[int], remote: Sequence[int], on_written: OnWritten) -> None:
        self.orders.append(("write", peer, list(local), list(remote)))
        on_written(HandoffError("the link broke") if 0 in remote else None)

    def expect_connection(self) -> None:
        self.orders.append(("expect",))

    def set_inbound(self, num_inbound: int) -> None:
        self.orders.append(("inbound", num_inbound))

    def close(self) -> None:
        raise AssertionError("the follower closes it, not its leader")


class Ranks:
    """A leader's hold on a follower; both note when they lose the other."""

    def __init__(self) -> None:
        self.mover = NotingMover()
        self.leader_lost = asyncio.Event()
        self.follower_lost = asyncio.Event()
        self.server = grpc.aio.server(options=SERVER_OPTIONS)
        service = RankService(self.mover, on_lost=self.leader_lost.set)
        rank_pb2_grpc.add_RankServiceServicer_to_server(service, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        event_loop = asyncio.get_running_loop()
        self.remote = RemoteMover("rank 1 of p@1", self.address, event_loop, on_lost=self.follower_lost.set)

    async def write(self, local: list[int], remote: list[int]) -> HandoffError | None:
        ended: Future[HandoffError | None] = Future()
        self.remote.write(PEER, local, remote, ended.set_result)
        return await asyncio.wait_for(asyncio.wrap_future(ended), TIMEOUT_S)


@pytest.fixture
async def ranks() -> AsyncIterator[Ranks]:
    ranks = Ranks()
    await ranks.server.start()
    await ranks.remote.open()
    yield ranks
    await asyncio.to_thread(ranks.remote.close)
    await ranks.server.stop(None)


async def test_orders_arrive_in_order_and_answers_come_back(ranks: Ranks) -> None:
    assert ranks.remote.metadata() == b"how to write here"
    ranks.remote.expect_connection()
    added = ranks.remote.add_peer(PEER, b"metadata")
    ranks.remote.set_inbound(2)
    assert await ranks.write([1, 2], [3, 4]) is None
    ranks.remote.remove_peer(PEER)
    failed = await ranks.write([1], [0])
    assert isinstance(failed, HandoffError)
    assert failed.message == "the link broke"
    assert added.result(0) is None
    assert ranks.mover.orders == [
        ("expect",),
        ("add", PEER, b"metadata"),
        ("inbound", 2),
        ("write", PEER, [1, 2], [3, 4]),
        ("remove", PEER),
        ("write", PEER, [1], [0]),
    ]


async def test_peer_that_cannot_be_reached_is_told(ranks: Ranks) -> None:
    with pytest.raises(HandoffError, match="wrong metadata"):
        await asyncio.wait_for(asyncio.wrap_future(ranks.remote.add_peer(PEER, b"wrong")), TIMEOUT_S)


async def test_leader_hears_that_its_follower_is_gone(ranks: Ranks) -> None:
    await ranks.server.stop(None)
    await asyncio.wait_for(ranks.follower_lost.wait(), TIMEOUT_S)


async def test_follower_hears_that_its_leader_is_gone(ranks: Ranks) -> None:
    assert ranks.remote._stream is not None
    ranks.remote._stream.cancel()
    await asyncio.wait_for(ranks.leader_lost.wait(), TIMEOUT_S)


async def test_second_leader_is_refused_and_disturbs_nobody(ranks: Ranks) -> None:
    event_loop = asyncio.get_running_loop()
    refused = asyncio.Event()
    second = RemoteMover("rank 1 of p@1", ranks.address, event_loop, on_lost=refused.set)
    opening = asyncio.create_task(second.open())
    await asyncio.wait_for(refused.wait(), TIMEOUT_S)
    opening.cancel()
    assert await ranks.write([1], [2]) is None
    assert not ranks.leader_lost.is_set()


async def test_orderly_end_is_nobodys_loss(ranks: Ranks) -> None:
    await asyncio.to_thread(ranks.remote.close)
    await ranks.server.stop(None)
    assert not ranks.leader_lost.is_set()
    assert not ranks.follower_lost.is_set()


async def test_follower_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_mover, "HELLO_TIMEOUT_S", 0.05)
    silent = RemoteMover("rank 1 of p@1", "127.0.0.1:1", asyncio.get_running_loop(), on_lost=lambda: None)
    with pytest.raises(UnavailableError, match="rank 1 of p@1 did not answer its leader"):
        await silent.open()
    await asyncio.to_thread(silent.close)
