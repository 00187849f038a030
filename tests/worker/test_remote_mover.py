"""Leader and follower over real gRPC: orders, answers, and how each notices that the other is dead."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace

import grpc
import pytest
from baton.v1 import rank_pb2_grpc

from core.errors import HANDOFF_ERRORS, HandoffError, PeerLostError, UnavailableError
from core.ids import WorkerId
from engine.kv.layout import KvLayout
from kvtransfer.geometry import RankGeometry
from kvtransfer.move import Direction, MoveOutcome, OnMoved
from kvtransfer.packing import BlockPart
from kvtransfer.rank_mover import OnSummed, RankMove, RankPeer
from worker import remote_mover
from worker.rank_channel import SERVER_OPTIONS
from worker.rank_service import RankService
from worker.rank_wire import error_from_proto, error_to_proto
from worker.remote_mover import RemoteMover

PEER = WorkerId("decode-0/1", 3)
LAYOUT = KvLayout(num_layers=4, kv_heads=1, block_tokens=64, head_dim=8, dtype="bfloat16")
PEER_RANK = RankPeer(PEER, "nixl", b"metadata", RankGeometry(LAYOUT, 1, 20), is_expected=False)
WRITE = RankMove(PEER, Direction.WRITE, (1, 2), (3, 4), skip_tokens=16, final_after_step=0)
READ = RankMove(PEER, Direction.READ, (1,), (2,))
TIMEOUT_S = 20.0


class NotingMover:
    """A rank's end of the transfer plane that notes its orders; moves with block 0 fail."""

    def __init__(self) -> None:
        self.orders: list[object] = []
        self.removed: Future[None] = Future()

    def offers(self) -> Mapping[str, bytes]:
        return {"nixl": b"how to reach me", "collective": b"or so"}

    def add_peer(self, peer: RankPeer) -> "Future[str]":
        self.orders.append(peer)
        future: Future[str] = Future()
        if peer.metadata == b"wrong":
            future.set_exception(HandoffError("wrong metadata"))
        else:
            future.set_result("cma")
        return future

    def remove_peer(self, peer: WorkerId, *, is_dead: bool) -> "Future[None]":
        self.orders.append(("remove", peer, is_dead))
        return self.removed

    def move(self, move: RankMove, on_moved: OnMoved) -> None:
        self.orders.append(move)
        error = PeerLostError("the peer died") if 0 in move.remote_ids else None
        on_moved(MoveOutcome(error, num_bytes=5, num_descriptors=2, busy_s=0.25))

    def checksums(self, parts: Sequence[BlockPart], on_summed: OnSummed) -> None:
        self.orders.append(list(parts))
        on_summed([2**64 - 1 - index for index in range(len(parts))])

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

    async def move(self, move: RankMove) -> MoveOutcome:
        ended: Future[MoveOutcome] = Future()
        self.remote.move(move, ended.set_result)
        return await asyncio.wait_for(asyncio.wrap_future(ended), TIMEOUT_S)

    async def add(self, metadata: bytes) -> str:
        peer = replace(PEER_RANK, metadata=metadata)
        return await asyncio.wait_for(asyncio.wrap_future(self.remote.add_peer(peer)), TIMEOUT_S)


@pytest.fixture
async def ranks() -> AsyncIterator[Ranks]:
    ranks = Ranks()
    await ranks.server.start()
    await ranks.remote.open()
    yield ranks
    await asyncio.to_thread(ranks.remote.close)
    await ranks.server.stop(None)


async def test_offers_come_with_the_hello_in_their_order(ranks: Ranks) -> None:
    offers = [("nixl", b"how to reach me"), ("collective", b"or so")]
    assert list(ranks.remote.offers().items()) == offers


async def test_orders_arrive_in_order_and_answers_come_back(ranks: Ranks) -> None:
    added = ranks.remote.add_peer(PEER_RANK)
    ranks.remote.set_inbound(2)
    outcome = MoveOutcome(None, num_bytes=5, num_descriptors=2, busy_s=0.25)
    assert await ranks.move(WRITE) == outcome
    ranks.remote.remove_peer(PEER, is_dead=True)
    assert await ranks.move(READ) == outcome
    assert added.result(0) == "cma"
    assert ranks.mover.orders == [PEER_RANK, ("inbound", 2), WRITE, ("remove", PEER, True), READ]


async def test_peer_is_removed_when_the_follower_has_removed_it(ranks: Ranks) -> None:
    removed = ranks.remote.remove_peer(PEER, is_dead=True)
    await ranks.move(WRITE)
    assert ranks.mover.orders[0] == ("remove", PEER, True)
    assert not removed.done()
    assert not removed.cancel()
    ranks.mover.removed.set_result(None)
    await asyncio.wait_for(asyncio.wrap_future(removed), TIMEOUT_S)


async def test_move_that_fails_comes_back_with_its_kind_of_error(ranks: Ranks) -> None:
    outcome = await ranks.move(replace(WRITE, remote_ids=(0,)))
    assert type(outcome.error) is PeerLostError
    assert outcome.error.message == "the peer died"
    assert outcome.num_bytes == 5


async def test_checksums_come_back_whole(ranks: Ranks) -> None:
    parts = [BlockPart((3, 4), 16, 64, 1, 2), BlockPart((5,), 0, 16, 0, 1)]
    summed: Future[Sequence[int]] = Future()
    ranks.remote.checksums(parts, summed.set_result)
    assert await asyncio.wait_for(asyncio.wrap_future(summed), TIMEOUT_S) == [2**64 - 1, 2**64 - 2]
    assert ranks.mover.orders == [parts]


async def test_peer_that_cannot_be_reached_is_told(ranks: Ranks) -> None:
    with pytest.raises(HandoffError, match="wrong metadata"):
        await ranks.add(b"wrong")


async def test_peer_whose_waiter_is_gone_hurts_nobody(ranks: Ranks) -> None:
    assert ranks.remote.add_peer(PEER_RANK).cancel()
    assert await ranks.add(b"right") == "cma"


@pytest.mark.parametrize("error", [HandoffError, *HANDOFF_ERRORS.values()])
def test_errors_keep_their_kind(error: type[HandoffError]) -> None:
    back = error_from_proto(error_to_proto(error("why")))
    assert (type(back), back.message) == (error, "why")


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
    assert (await ranks.move(WRITE)).error is None
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
