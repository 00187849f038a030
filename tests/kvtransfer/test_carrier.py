"""What a rank does with moves and peers, driven by hand over transports that end when the test says so."""

from dataclasses import dataclass, field, replace
from functools import partial

import pytest

from core.clock import ManualClock
from core.errors import HandoffError, IncompatibleLayoutError, PeerLostError
from core.ids import WorkerId
from engine.kv.progress import StepProgress
from kvtransfer.carrier import Carrier
from kvtransfer.geometry import RankGeometry
from kvtransfer.move import Direction, MoveOutcome
from kvtransfer.rank_mover import RankMove
from kvtransfer.transport import TransferState
from tests.kvtransfer.scripted import (
    OTHER,
    PEER,
    RANK,
    ScriptedTransport,
    memory_of_rank,
    rank_peer,
)

MIB = 1 << 20
LARGE = replace(RANK, layout=replace(RANK.layout, block_tokens=32), num_blocks=8)  # blocks of 2 MiB


def writing(num_blocks: int, peer: WorkerId = PEER, *, final_after_step: int | None = None) -> RankMove:
    ids = list(range(num_blocks))
    return RankMove(peer, Direction.WRITE, ids, ids, final_after_step=final_after_step)


@dataclass
class Rig:
    clock: ManualClock = field(default_factory=ManualClock)
    progress: StepProgress = field(default_factory=lambda: StepProgress(RANK.layout.num_layers))
    a: ScriptedTransport = field(default_factory=ScriptedTransport)
    b: ScriptedTransport = field(default_factory=ScriptedTransport)
    heard: list[tuple[str, MoveOutcome]] = field(default_factory=list)

    def __post_init__(self) -> None:
        transports = {"a": self.a, "b": self.b}
        self.carrier = Carrier(transports, memory_of_rank(), RANK, self.progress, self.clock)

    def move(self, name: str, move: RankMove) -> None:
        self.carrier.move(move, lambda outcome: self.heard.append((name, outcome)))

    def advance(self) -> None:
        while self.carrier.advance():
            pass

    def end(self, *numbers: int, outcome: TransferState | Exception = TransferState.DONE) -> None:
        for number in numbers:
            self.a.transfers[number].outcome = outcome
        self.advance()


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    assert rig.carrier.add_peer(rank_peer()) == "thin air"
    return rig


def test_move_goes_in_pieces_of_which_two_are_under_way(rig: Rig) -> None:
    """Four blocks of 1 MiB are a piece."""
    rig.move("m", writing(10))
    rig.advance()
    assert [transfer.runs for transfer in rig.a.transfers] == [16, 16]
    rig.end(1)
    assert [transfer.runs for transfer in rig.a.transfers] == [16, 16, 8]
    rig.end(2)
    assert rig.heard == []
    rig.end(0)
    assert rig.heard == [("m", MoveOutcome(None, num_bytes=10 * MIB, num_descriptors=10))]
    assert not rig.carrier.has_open_moves


def test_moves_take_turns(rig: Rig) -> None:
    rig.a.first_outcomes = [TransferState.DONE] * 6
    for name in ("long", "short"):
        rig.move(name, writing(16 if name == "long" else 8))
    rig.advance()
    assert [call.split(" [")[1].split(",")[0] for call in rig.a.posted] == ["0", "0", "16", "16", "32", "48"]
    assert [name for name, _ in rig.heard] == ["short", "long"]


def test_layers_leave_as_the_step_ends_them(rig: Rig) -> None:
    """A row of a block is one of four layers, so four of eight blocks' are the least that is worth a post."""
    rig.move("m", writing(8, final_after_step=1))
    rig.advance()
    assert rig.a.posted == []
    rig.progress.begin()
    for layer in range(3):
        rig.progress.end_layer()
        rig.advance()
        runs = [block * 4 + layer for block in range(8)]
        assert rig.a.posted[-1] == f"write decode-0@1 {runs} {runs}"
        rig.end(layer)
    rig.progress.end()
    rig.advance()
    rig.end(3)
    assert [(name, outcome.error, outcome.num_bytes) for name, outcome in rig.heard] == [("m", None, 8 * MIB)]
    assert len(rig.a.posted) == 4


def test_only_time_with_pieces_under_way_is_busy(rig: Rig) -> None:
    rig.move("m", writing(8, final_after_step=1))
    rig.clock.advance(100.0)
    rig.advance()
    rig.progress.begin()
    rig.progress.end_layer()
    rig.advance()
    rig.clock.advance(2.0)
    rig.end(0)
    rig.clock.advance(1000.0)
    rig.progress.end()
    rig.advance()
    rig.clock.advance(3.0)
    rig.end(1)
    rig.clock.advance(4.0)
    rig.end(2)
    ((_, outcome),) = rig.heard
    assert outcome.busy_s == 2.0 + 3.0 + 4.0


def test_piece_that_fails_ends_the_move_when_the_other_has_ended(rig: Rig) -> None:
    rig.move("bad", writing(16))
    rig.move("good", writing(1))
    rig.advance()
    error = HandoffError("the link broke")
    bad = [number for number, transfer in enumerate(rig.a.transfers) if transfer.runs == 16]
    rig.end(bad[0], outcome=error)
    assert rig.heard == []
    rig.end(bad[1])
    ((name, outcome),) = rig.heard
    assert (name, outcome.error, outcome.num_bytes) == ("bad", error, 4 * MIB)
    assert len(rig.a.transfers) == 3
    rig.end(1)
    assert [(name, outcome.error) for name, outcome in rig.heard[1:]] == [("good", None)]


def test_piece_that_cannot_be_posted_fails_its_move_only(rig: Rig) -> None:
    rig.a.peers.clear()
    rig.move("m", writing(1))
    rig.advance()
    ((_, outcome),) = rig.heard
    assert str(outcome.error) == "decode-0@1 is not connected"


def test_unknown_peer_is_refused_by_name(rig: Rig) -> None:
    rig.move("m", writing(1, OTHER))
    ((_, outcome),) = rig.heard
    assert "decode-1@1 is not connected any more" in str(outcome.error)


def test_transport_that_is_not_here_is_refused_with_those_that_are(rig: Rig) -> None:
    with pytest.raises(HandoffError, match="'c', but there is only a, b here"):
        rig.carrier.add_peer(rank_peer(transport="c"))


def test_larger_blocks_of_the_peer_wait_for_room_in_staging(rig: Rig) -> None:
    """Staging has four slots of 2 MiB; a piece takes one, so the fifth waits although its move has begun."""
    peers = [WorkerId(f"decode-{number}", 1) for number in range(2, 7)]
    for peer in peers:
        rig.carrier.add_peer(rank_peer(peer, geometry=LARGE))
        rig.move(peer.name, RankMove(peer, Direction.WRITE, [0, 1], [5]))
    rig.advance()
    assert len(rig.a.posted) == 4
    rig.end(0)
    assert len(rig.a.posted) == 5
    rig.end(1, 2, 3, 4)
    assert [outcome.error for _, outcome in rig.heard] == [None] * 5
    assert sum(outcome.num_bytes for _, outcome in rig.heard) == 5 * 2 * MIB


def test_peer_that_hangs_leaves_staging_to_others(rig: Rig) -> None:
    """It has a quarter, or a piece where that is more; the other's move ends beside it."""
    for peer in (PEER, OTHER):
        rig.carrier.add_peer(rank_peer(peer, geometry=LARGE))
    for _ in range(4):
        rig.move("hangs", RankMove(PEER, Direction.WRITE, [0, 1, 2, 3], [5, 6]))
    rig.advance()
    assert len(rig.a.posted) == 1
    rig.move("goes on", RankMove(OTHER, Direction.WRITE, [0, 1, 2, 3], [5, 6]))
    rig.advance()
    rig.end(1)
    rig.end(2)
    assert [(name, outcome.error) for name, outcome in rig.heard] == [("goes on", None)]


@pytest.mark.parametrize("failing", ["post", "poll", "death"])
def test_staging_is_free_again_after_a_failure(rig: Rig, failing: str) -> None:
    rig.carrier.add_peer(rank_peer(OTHER, geometry=LARGE))
    if failing == "post":
        rig.a.peers.clear()
    for _ in range(2):
        rig.move("m", RankMove(OTHER, Direction.WRITE, [0, 1, 2, 3], [5, 6]))
    rig.advance()
    if failing == "poll":
        for number in range(2):  # the second one's piece has waited for room
            rig.end(number, outcome=HandoffError("the link broke"))
    if failing == "death":
        rig.carrier.remove_peer(OTHER, is_dead=True)
    assert len(rig.heard) == 2
    assert all(outcome.error is not None for _, outcome in rig.heard)
    assert rig.carrier._staging._book._taken == []


def test_larger_blocks_cannot_be_read(rig: Rig) -> None:
    rig.carrier.add_peer(rank_peer(OTHER, geometry=LARGE))
    rig.move("m", RankMove(OTHER, Direction.READ, [0, 1], [0]))
    ((_, outcome),) = rig.heard
    assert isinstance(outcome.error, IncompatibleLayoutError)


def test_dead_peer_fails_its_moves_at_once_and_is_forgotten_first(rig: Rig) -> None:
    """Whoever hears of it frees the blocks."""
    rig.carrier.add_peer(rank_peer(OTHER))
    rig.move("other", writing(1, OTHER))
    forgotten: list[bool] = []
    rig.carrier.move(writing(16), lambda _: forgotten.append(PEER not in rig.a.peers))
    rig.move("lost", writing(16))
    rig.advance()
    rig.carrier.remove_peer(PEER, is_dead=True)
    assert forgotten == [True]
    ((name, outcome),) = rig.heard
    assert name == "lost"
    assert isinstance(outcome.error, PeerLostError)
    assert "decode-0@1 died" in str(outcome.error)
    polls = [transfer.num_polls for transfer in rig.a.transfers[1:]]
    rig.advance()
    assert [transfer.num_polls for transfer in rig.a.transfers[1:]] == polls
    rig.end(0)
    assert rig.heard[1][1].error is None


def test_peer_that_is_removed_leaves_after_its_last_move(rig: Rig) -> None:
    """Forgotten under a transfer, it would make the transfer look ended while its blocks are still read."""
    rig.move("open", writing(16))
    rig.advance()
    rig.carrier.remove_peer(PEER, is_dead=False)
    rig.move("late", writing(1))
    assert [name for name, _ in rig.heard] == ["late"]
    rig.end(0, 1)
    assert PEER in rig.a.peers
    rig.end(2, 3)
    assert [(name, outcome.error) for name, outcome in rig.heard[1:]] == [("open", None)]
    assert rig.a.calls[-1] == "remove decode-0@1"


def test_peer_that_is_leaving_dies_and_its_moves_fail_at_once(rig: Rig) -> None:
    rig.move("stuck", writing(16))
    rig.advance()
    rig.carrier.remove_peer(PEER, is_dead=False)
    assert rig.heard == []
    rig.carrier.remove_peer(PEER, is_dead=True)
    assert [type(outcome.error) for _, outcome in rig.heard] == [PeerLostError]
    assert rig.a.peers == set()


def test_peer_that_comes_back_before_it_has_left_stays(rig: Rig) -> None:
    rig.move("m", writing(1))
    rig.advance()
    rig.carrier.remove_peer(PEER, is_dead=False)
    rig.carrier.add_peer(rank_peer())
    rig.end(0)
    rig.move("next", writing(1))
    rig.advance()
    assert rig.a.calls.count("add decode-0@1") == 1  # nothing is prepared anew under a transfer
    assert PEER in rig.a.peers
    assert len(rig.a.transfers) == 2


def test_peer_that_is_another_under_open_moves_is_refused(rig: Rig) -> None:
    rig.move("m", writing(1))
    rig.advance()
    with pytest.raises(HandoffError, match="decode-0@1 says something else of itself than before"):
        rig.carrier.add_peer(rank_peer(geometry=LARGE))
    rig.end(0)
    rig.carrier.add_peer(rank_peer(geometry=LARGE))
    assert rig.heard[0][1].error is None


def test_new_transport_takes_new_moves_and_the_old_one_forgets_after_the_last(rig: Rig) -> None:
    rig.move("old", writing(16))
    rig.advance()
    rig.carrier.add_peer(rank_peer(transport="b"))
    rig.move("new", writing(1))
    rig.advance()
    assert len(rig.b.posted) == 1
    rig.end(0, 1)
    assert PEER in rig.a.peers
    rig.end(2, 3)
    assert rig.a.peers == set()
    assert rig.b.peers == {PEER}
    assert [(name, outcome.error) for name, outcome in rig.heard] == [("old", None)]


def test_old_transport_keeps_a_peer_that_it_expects(rig: Rig) -> None:
    """The peer's own transfers go over it."""
    rig.carrier.add_peer(rank_peer(is_expected=True))
    rig.carrier.add_peer(rank_peer(transport="b"))
    assert rig.a.calls == ["add decode-0@1", "expect decode-0@1 scripted"]
    rig.carrier.remove_peer(PEER, is_dead=False)
    assert rig.a.calls == ["add decode-0@1", "expect decode-0@1 scripted"]
    assert rig.b.calls[-1] == "remove decode-0@1"


def test_peer_that_is_removed_alive_may_go_on_starting_transfers(rig: Rig) -> None:
    """Its connection is its own; this rank only starts nothing with it any more."""
    rig.carrier.add_peer(rank_peer(is_expected=True))
    rig.carrier.remove_peer(PEER, is_dead=False)
    assert "remove decode-0@1" not in rig.a.calls
    rig.move("m", writing(1))
    assert "not connected any more" in str(rig.heard[0][1].error)
    rig.carrier.remove_peer(PEER, is_dead=True)
    assert rig.a.calls[-1] == "remove decode-0@1"


def test_dead_peer_is_forgotten_by_every_transport_even_after_it_was_removed(rig: Rig) -> None:
    """Forgetting takes in what it has sent, whoever has forgotten it as a target before."""
    rig.carrier.remove_peer(PEER, is_dead=False)
    assert rig.a.calls.pop() == "remove decode-0@1"
    rig.carrier.remove_peer(PEER, is_dead=True)
    assert rig.a.calls[-1] == "remove decode-0@1"
    assert rig.b.calls == ["remove decode-0@1"]


def test_expected_peer_cannot_be_moved_to(rig: Rig) -> None:
    assert rig.carrier.add_peer(rank_peer(OTHER, is_expected=True)) == ""
    rig.move("m", writing(1, OTHER))
    assert "not connected" in str(rig.heard[0][1].error)


def test_peer_that_cannot_be_reached_may_be_tried_again(rig: Rig) -> None:
    add = partial(rig.carrier.add_peer)
    with pytest.raises(HandoffError, match="metadata of decode-1@1"):
        add(rank_peer(OTHER, metadata=b"nonsense"))
    add(rank_peer(OTHER))
    assert rig.a.peers == {PEER, OTHER}


def test_offers_name_all_transports_in_order(rig: Rig) -> None:
    assert list(rig.carrier.offers().items()) == [("a", b"scripted"), ("b", b"scripted")]


def test_small_blocks_of_a_peer_leave_from_their_token() -> None:
    """Only a half of the source's first block is wanted."""
    half = RankGeometry(replace(RANK.layout, block_tokens=8), 0, 32)
    rig = Rig()
    rig.carrier.add_peer(rank_peer(geometry=half))
    rig.move("m", RankMove(PEER, Direction.WRITE, [3, 5], [1, 2, 0], skip_tokens=8))
    rig.advance()
    rig.end(0)
    ((_, outcome),) = rig.heard
    assert (outcome.error, outcome.num_bytes) == (None, 3 * MIB // 2)
