"""Whole workers of several ranks: what arrives where, and when a write counts as ended."""

from collections.abc import Sequence
from concurrent.futures import Future

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from core.errors import HandoffError
from core.ids import WorkerId, rank_id
from kvtransfer.group_mover import GroupMover
from kvtransfer.local_transport import LocalTransport
from kvtransfer.memory import RankMemory
from kvtransfer.mover import BlockMover
from kvtransfer.rank_mover import OnWritten
from tests.kvtransfer.fleets import memory_of, random_pool

P, D = WorkerId("prefill-0", 7), WorkerId("decode-0", 3)
TIMEOUT_S = 20.0


class Group:
    """A worker of two ranks in this process."""

    def __init__(
        self, worker: WorkerId, blocks_per_rank: int, neighbours: dict[WorkerId, RankMemory], *, is_partitioned: bool
    ) -> None:
        self.worker = worker
        self.pools = [random_pool(blocks_per_rank) for _ in range(2)]
        self.num_blocks = 2 * blocks_per_rank if is_partitioned else blocks_per_rank
        memories = [memory_of(pool) for pool in self.pools]
        ranks = [LocalTransport(rank_id(worker, rank), memory, neighbours) for rank, memory in enumerate(memories)]
        movers = [BlockMover(*rank, on_crash=pytest.fail) for rank in zip(ranks, memories, strict=True)]
        self.mover = GroupMover(movers, self.num_blocks, is_partitioned=is_partitioned)

    def block(self, block_id: int) -> torch.Tensor:
        """A block of the partitioned book."""
        per_rank = self.pools[0].num_blocks
        return self.pools[block_id // per_rank].tensor[block_id % per_rank]


class Pair:
    """P, connected to D."""

    def __init__(self, blocks: tuple[int, int], *, is_partitioned: bool) -> None:
        neighbours: dict[WorkerId, RankMemory] = {}
        self.p, self.d = (
            Group(worker, blocks_per_rank, neighbours, is_partitioned=is_partitioned)
            for worker, blocks_per_rank in zip((P, D), blocks, strict=True)
        )
        self.p.mover.add_peer(D, self.d.mover.metadata(), self.d.num_blocks).result(TIMEOUT_S)

    def write(self, local: Sequence[int], remote: Sequence[int]) -> None:
        ended: Future[HandoffError | None] = Future()
        self.p.mover.write(D, local, remote, ended.set_result)
        assert ended.result(TIMEOUT_S) is None

    def close(self) -> None:
        self.p.mover.close()
        self.d.mover.close()


def test_mirrored_blocks_go_from_every_rank_to_the_same_rank() -> None:
    pair = Pair((8, 8), is_partitioned=False)
    expected = [pool.tensor.clone() for pool in pair.d.pools]
    for tensor, source in zip(expected, pair.p.pools, strict=True):
        tensor[[5, 0]] = source.tensor[[1, 2]]
    pair.write([1, 2], [5, 0])
    for pool, tensor in zip(pair.d.pools, expected, strict=True):
        assert torch.equal(pool.tensor, tensor)
    pair.close()


@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_partitioned_blocks_arrive_whichever_ranks_hold_them(data: st.DataObject) -> None:
    """The ranks' pools differ in size between the workers, as their memory may."""
    pair = Pair((4, 6), is_partitioned=True)
    local = data.draw(st.lists(st.integers(0, 7), min_size=1, unique=True))
    remote = data.draw(st.lists(st.integers(0, 11), min_size=len(local), max_size=len(local), unique=True))
    before = [pair.d.block(block_id).clone() for block_id in range(12)]
    pair.write(local, remote)
    arrived = dict(zip(remote, local, strict=True))
    for block_id in range(12):
        expected = pair.p.block(arrived[block_id]) if block_id in arrived else before[block_id]
        assert torch.equal(pair.d.block(block_id), expected)
    pair.close()


class HeldMover:
    """A rank whose transfers end when the test says so."""

    def __init__(self) -> None:
        self.open: list[OnWritten] = []
        self.connecting: list[Future[None]] = []

    def metadata(self) -> bytes:
        return b"rank"

    def add_peer(self, _peer: WorkerId, _metadata: bytes) -> "Future[None]":
        self.connecting.append(Future())
        return self.connecting[-1]

    def remove_peer(self, _peer: WorkerId) -> None:
        pass

    def write(self, _peer: WorkerId, _local: Sequence[int], _remote: Sequence[int], on_written: OnWritten) -> None:
        self.open.append(on_written)


@pytest.fixture
def held() -> tuple[GroupMover, list[HeldMover]]:
    ranks = [HeldMover(), HeldMover()]
    return GroupMover(ranks, 8, is_partitioned=False), ranks  # type: ignore[arg-type] # what is not called is not there


def test_write_has_ended_when_the_last_rank_says_so(held: tuple[GroupMover, list[HeldMover]]) -> None:
    mover, ranks = held
    heard: list[HandoffError | None] = []
    mover.add_peer(D, [b"0", b"1"], 8)
    mover.write(D, [1], [2], heard.append)
    ranks[1].open[0](None)
    assert heard == []
    ranks[0].open[0](None)
    assert heard == [None]


@pytest.mark.parametrize("failing", [0, 1])
def test_write_that_fails_on_one_rank_fails_when_all_have_ended(
    held: tuple[GroupMover, list[HeldMover]], failing: int
) -> None:
    """The other rank's write still reads the blocks until then."""
    mover, ranks = held
    heard: list[HandoffError | None] = []
    error = HandoffError("the link broke")
    mover.add_peer(D, [b"0", b"1"], 8)
    mover.write(D, [1], [2], heard.append)
    ranks[failing].open[0](error)
    assert heard == []
    ranks[1 - failing].open[0](None)
    assert heard == [error]


def test_write_to_a_peer_that_is_gone_fails_at_once(held: tuple[GroupMover, list[HeldMover]]) -> None:
    """Without it nobody knows which of its ranks a block id means."""
    mover, ranks = held
    heard: list[HandoffError | None] = []
    mover.add_peer(D, [b"0", b"1"], 8)
    mover.remove_peer(D)
    mover.write(D, [1], [2], heard.append)
    (error,) = heard
    assert "decode-0@3 is not connected any more" in str(error)
    assert not any(rank.open for rank in ranks)


def test_peer_is_connected_when_all_ranks_are(held: tuple[GroupMover, list[HeldMover]]) -> None:
    mover, ranks = held
    connected = mover.add_peer(D, [b"0", b"1"], 8)
    ranks[0].connecting[0].set_exception(HandoffError("no route"))
    assert not connected.done()
    ranks[1].connecting[0].set_result(None)
    with pytest.raises(HandoffError, match="no route"):
        connected.result(0)


def test_peer_with_another_number_of_ranks_is_refused_with_both(held: tuple[GroupMover, list[HeldMover]]) -> None:
    mover, _ = held
    with pytest.raises(HandoffError, match="decode-0@3 is divided otherwise: it has 1 ranks, this worker 2"):
        mover.add_peer(D, [b"0"], 8).result(0)


def test_rank_zero_is_known_as_its_worker_and_others_are_told_apart() -> None:
    assert rank_id(D, 0) == D
    assert len({rank_id(worker, rank) for worker in (P, D) for rank in range(4)}) == 8
    assert rank_id(WorkerId("decode-0", 4), 1).supersedes(rank_id(D, 1))
