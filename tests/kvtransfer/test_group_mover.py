"""A worker's move as its ranks': when it has ended, how outcomes add up, and what is refused at once."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace

import pytest

from core.errors import HandoffError, IncompatibleLayoutError, PeerLostError
from core.ids import WorkerId, rank_id
from kvtransfer.group_mover import GroupMover, PeerLink
from kvtransfer.memory import RankMemory
from kvtransfer.move import Digest, Direction, Move, MoveOutcome, OnMoved
from kvtransfer.packing import BlockPart
from kvtransfer.rank_mover import OnSummed, RankMove, RankPeer
from tests.kvtransfer.groups import Division, Group, geometry, local_transports, moved

P, D = WorkerId("prefill-0", 7), WorkerId("decode-0", 3)
TWO_TENSORS, TWO_PARTITIONS = Division(2), Division(1, 2)


class HeldMover:
    """A rank whose transfers end when the test says so."""

    def __init__(self, offers: Mapping[str, bytes]) -> None:
        self.open: list[tuple[RankMove, OnMoved]] = []
        self.added: list[tuple[RankPeer, Future[str]]] = []
        self.removed: list[tuple[WorkerId, bool]] = []
        self.removing: list[Future[None]] = []
        self.inbound = 0
        self.is_closed = False
        self._offers = offers

    def offers(self) -> Mapping[str, bytes]:
        return self._offers

    def add_peer(self, peer: RankPeer) -> "Future[str]":
        self.added.append((peer, Future()))
        return self.added[-1][1]

    def remove_peer(self, peer: WorkerId, *, is_dead: bool) -> "Future[None]":
        self.removed.append((peer, is_dead))
        self.removing.append(Future())
        return self.removing[-1]

    def move(self, move: RankMove, on_moved: OnMoved) -> None:
        self.open.append((move, on_moved))

    def checksums(self, parts: Sequence[BlockPart], on_summed: OnSummed) -> None:
        on_summed([part.block_ids[0] * 100 + part.first_head for part in parts])

    def set_inbound(self, num_inbound: int) -> None:
        self.inbound = num_inbound

    def close(self) -> None:
        self.is_closed = True


class Held:
    """P with two held ranks, connected to D, which is divided alike."""

    def __init__(self, division: Division) -> None:
        self.ranks = [HeldMover({"nixl": b"n%d" % rank, "collective": b"c%d" % rank}) for rank in range(2)]
        self.geometry = geometry(division)
        self.mover = GroupMover(self.ranks, self.geometry)
        self.outcomes: list[MoveOutcome] = []
        self.connected = self.mover.add_peer(D, PeerLink("nixl", [b"0", b"1"], self.geometry))

    def move(self, local: list[int], remote: list[int], digest_every: int = 0) -> None:
        move = Move(D, Direction.WRITE, local, remote, digest_every=digest_every)
        self.mover.move(move, self.outcomes.append)

    def end(self, rank: int, outcome: MoveOutcome) -> None:
        _, on_moved = self.ranks[rank].open.pop(0)
        on_moved(outcome)


@pytest.fixture
def held() -> Held:
    return Held(TWO_TENSORS)


def test_move_has_ended_when_the_last_rank_says_so_and_outcomes_add_up(held: Held) -> None:
    held.move([1], [2])
    held.end(1, MoveOutcome(None, num_bytes=10, num_descriptors=1, busy_s=0.5))
    assert held.outcomes == []
    held.end(0, MoveOutcome(None, num_bytes=20, num_descriptors=2, busy_s=0.25))
    assert held.outcomes == [MoveOutcome(None, num_bytes=30, num_descriptors=3, busy_s=0.5)]


@pytest.mark.parametrize("failing", [0, 1])
def test_move_that_fails_on_one_rank_fails_when_all_have_ended(held: Held, failing: int) -> None:
    """The other rank's transfer still reads the blocks until then."""
    error = PeerLostError("the link broke")
    held.move([1], [2], digest_every=1)
    held.end(failing, MoveOutcome(error))
    assert held.outcomes == []
    held.end(1 - failing, MoveOutcome(None, num_bytes=10))
    assert held.outcomes == [MoveOutcome(error, num_bytes=10)]


def test_ranks_of_a_partition_move_what_is_theirs() -> None:
    held = Held(TWO_PARTITIONS)  # 12 blocks each
    held.move([13, 15], [2, 0])
    assert held.ranks[0].open == []
    ((move, _),) = held.ranks[1].open
    assert move == RankMove(rank_id(D, 0), Direction.WRITE, [1, 3], [2, 0])


def test_blocks_of_two_partitions_are_no_move() -> None:
    held = Held(TWO_PARTITIONS)
    held.move([1, 13], [2, 0])
    held.move([1, 2], [2, 12])
    errors = [str(outcome.error) for outcome in held.outcomes]
    assert "partitions [0, 1] of this worker" in errors[0]
    assert "partitions [0, 1] of worker decode-0@3" in errors[1]


@pytest.mark.parametrize(
    ("local", "remote", "message"),
    [
        ([12], [0], "this worker has no block 12, only 12"),
        ([0], [12], "worker decode-0@3 has no block 12, only 12"),
        ([0, 1], [0], "2 blocks of 16 tokens, from token 0 on, are not what 1 blocks of 16 hold"),
    ],
)
def test_blocks_that_are_not_there_or_do_not_fit_are_refused(
    held: Held, local: list[int], remote: list[int], message: str
) -> None:
    held.move(local, remote)
    ((outcome),) = held.outcomes
    assert message in str(outcome.error)
    assert not any(rank.open for rank in held.ranks)


def test_target_blocks_past_the_end_of_the_source_are_refused(held: Held) -> None:
    small = replace(held.geometry, layout=replace(held.geometry.layout, block_tokens=8))
    held.mover.add_peer(D, PeerLink("nixl", [b"0", b"1"], small))
    held.move([1], [0, 1, 2])
    assert "1 blocks of 16 tokens, from token 0 on, are not what 3 blocks of 8 hold" in str(held.outcomes[0].error)


def test_move_with_a_peer_that_is_gone_fails_at_once(held: Held) -> None:
    """Without it nobody knows which of its ranks a block id means."""
    held.mover.remove_peer(D, is_dead=True)
    held.mover.remove_peer(D)
    held.move([1], [2])
    assert "decode-0@3 is not connected any more" in str(held.outcomes[0].error)
    assert [rank.removed for rank in held.ranks] == [[(rank_id(D, 0), True)], [(rank_id(D, 1), True)]]


def test_peer_that_was_removed_alive_may_still_die(held: Held) -> None:
    """Its moves may be open: they end when its processes are known to be dead."""
    held.mover.remove_peer(D)
    held.mover.remove_peer(D, is_dead=True)
    assert [is_dead for _, is_dead in held.ranks[0].removed] == [False, True]


def test_dead_peer_is_forgotten_when_all_ranks_have_forgotten_it(held: Held) -> None:
    """Whoever hears of the death again waits as long: until then its bytes may land."""
    first, again = (held.mover.remove_peer(D, is_dead=True) for _ in range(2))
    held.ranks[1].removing[0].set_result(None)
    assert not first.done()
    assert not again.done()
    assert not first.cancel()
    held.ranks[0].removing[0].set_result(None)
    assert first.done()
    assert again.done()
    assert held.mover.remove_peer(D, is_dead=True).done()


def test_peer_that_was_never_known_is_forgotten_at_once(held: Held) -> None:
    assert held.mover.remove_peer(WorkerId("decode-1", 1), is_dead=True).done()


def test_peer_is_connected_when_all_ranks_are(held: Held) -> None:
    held.ranks[0].added[0][1].set_result("tcp")
    assert not held.connected.done()
    held.ranks[1].added[0][1].set_result("cma")
    assert held.connected.result(0) == "cma+tcp"


def test_peer_that_one_rank_cannot_reach_is_not_connected(held: Held) -> None:
    held.ranks[0].added[0][1].set_exception(HandoffError("no route"))
    assert not held.connected.done()
    held.ranks[1].added[0][1].set_result("cma")
    with pytest.raises(HandoffError, match="no route"):
        held.connected.result(0)


def test_connection_that_nobody_waits_for_any_more_hurts_nobody(held: Held) -> None:
    assert held.connected.cancel()
    for rank in held.ranks:
        rank.added[0][1].set_result("cma")
    assert held.connected.cancelled()


def test_ranks_hear_what_they_need_of_the_ranks_they_meet(held: Held) -> None:
    theirs = geometry(Division())
    held.mover.add_peer(D, PeerLink("collective", [b"all"], theirs, is_expected=True))
    for rank in held.ranks:
        assert rank.added[1][0] == RankPeer(D, "collective", b"all", theirs.rank(0), is_expected=True)


def test_peer_that_cannot_be_reconciled_is_refused(held: Held) -> None:
    theirs = geometry(Division(), num_layers=5)
    with pytest.raises(IncompatibleLayoutError, match="num_layers is 3 here and 5 there"):
        held.mover.add_peer(WorkerId("decode-1", 1), PeerLink("nixl", [b""], theirs)).result(0)


def test_peer_that_does_not_say_how_to_reach_all_its_ranks_is_refused(held: Held) -> None:
    with pytest.raises(HandoffError, match="decode-0@3 says how to reach 1 ranks, but has 2"):
        held.mover.add_peer(D, PeerLink("nixl", [b"0"], held.geometry)).result(0)


def test_offers_are_of_transports_that_all_ranks_have() -> None:
    ranks = [HeldMover({"nixl": b"n0", "collective": b"c0"}), HeldMover({"collective": b"c1"})]
    assert GroupMover(ranks, geometry(TWO_TENSORS)).offers() == {"collective": [b"c0", b"c1"]}


def test_inbound_and_close_reach_all_ranks(held: Held) -> None:
    held.mover.set_inbound(3)
    held.mover.close()
    assert [(rank.inbound, rank.is_closed) for rank in held.ranks] == [(3, True)] * 2


def test_digests_name_the_targets_ranks_and_blocks(held: Held) -> None:
    """Every second block; the ranks sum their own blocks up."""
    held.move([5, 6, 7], [2, 9, 4], digest_every=2)
    for rank in range(2):
        held.end(rank, MoveOutcome(None, num_bytes=1))
    ((outcome),) = held.outcomes
    assert set(outcome.digests) == {
        Digest(rank=0, block_id=2, first_head=0, num_heads=1, value=500),
        Digest(rank=0, block_id=4, first_head=0, num_heads=1, value=700),
        Digest(rank=1, block_id=2, first_head=1, num_heads=1, value=501),
        Digest(rank=1, block_id=4, first_head=1, num_heads=1, value=701),
    }
    heard: list[Sequence[Digest]] = []
    held.mover.digests(Move(D, Direction.WRITE, [5, 6, 7], [2, 9, 4], digest_every=2), heard.append)
    assert set(heard[0]) == set(outcome.digests)


@pytest.mark.parametrize(
    "wrong",
    [
        Digest(rank=2, block_id=2, first_head=0, num_heads=1, value=200),
        Digest(rank=-1, block_id=2, first_head=0, num_heads=1, value=200),
        Digest(rank=0, block_id=12, first_head=0, num_heads=1, value=1200),
        Digest(rank=0, block_id=2, first_head=0, num_heads=2, value=200),
        Digest(rank=0, block_id=2, first_head=0, num_heads=0, value=200),
        Digest(rank=1, block_id=2, first_head=0, num_heads=1, value=200),
        Digest(rank=0, block_id=2, first_head=0, num_heads=1, value=201),
    ],
)
def test_digests_of_what_is_not_there_or_is_another_do_not_verify(held: Held, wrong: Digest) -> None:
    right = Digest(rank=0, block_id=2, first_head=0, num_heads=1, value=200)
    assert held.mover.verify([right]).result(0)
    assert not held.mover.verify([right, wrong]).result(0)


def test_whoever_gives_up_waiting_for_a_verification_hurts_nobody(held: Held) -> None:
    assert not held.mover.verify([]).cancel()


def test_nothing_to_verify_is_verified(held: Held) -> None:
    assert held.mover.verify([]).result(0)


def pair(source: Division, target: Division, total_heads: int = 2) -> tuple[Group, Group]:
    neighbours: dict[WorkerId, RankMemory] = {}
    p = Group(P, geometry(source, total_heads), local_transports(neighbours))
    d = Group(D, geometry(target, total_heads), local_transports(neighbours))
    p.connect(d)
    d.connect(p)
    return p, d


def test_read_of_other_block_sizes_is_refused_and_the_other_way_is_told() -> None:
    p, d = pair(Division(block_tokens=16), Division(block_tokens=64))
    outcome = moved(d, Move(P, Direction.READ, [0], [0, 1, 2, 3]))
    assert isinstance(outcome.error, IncompatibleLayoutError)
    assert "push" in outcome.error.message
    assert moved(p, Move(D, Direction.WRITE, [0, 1, 2, 3], [0])).error is None


def test_rank_zero_is_known_as_its_worker_and_others_are_told_apart() -> None:
    assert rank_id(D, 0) == D
    assert len({rank_id(worker, rank) for worker in (P, D) for rank in range(4)}) == 8
    assert rank_id(WorkerId("decode-0", 4), 1).supersedes(rank_id(D, 1))
