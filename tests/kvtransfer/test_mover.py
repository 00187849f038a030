"""The thread around a carrier: who runs what, when it sleeps, and what happens when it dies."""

import itertools
import queue
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import pytest

from core.clock import SystemClock
from core.errors import HandoffError
from engine.kv.progress import StepProgress
from kvtransfer import mover as mover_module
from kvtransfer.carrier import Carrier
from kvtransfer.move import Direction, MoveOutcome
from kvtransfer.mover import INBOUND_POLL_S, POLL_S, BlockMover
from kvtransfer.packing import BlockPart, PoolReader
from kvtransfer.rank_mover import RankMove
from kvtransfer.transport import TransferState
from tests.kvtransfer.scripted import OTHER, PEER, RANK, TIMEOUT_S, ScriptedTransport, memory_of_rank, rank_peer


def writing(block_id: int) -> RankMove:
    return RankMove(PEER, Direction.WRITE, [block_id], [block_id])


class Answers:
    """Callbacks that note who ended, how and in which order."""

    def __init__(self) -> None:
        self.ended: queue.SimpleQueue[tuple[str, HandoffError | None]] = queue.SimpleQueue()

    def of(self, name: str) -> Callable[[MoveOutcome], None]:
        return lambda outcome: self.ended.put((name, outcome.error))

    def next(self) -> tuple[str, HandoffError | None]:
        return self.ended.get(timeout=TIMEOUT_S)


class RecordingQueue(queue.SimpleQueue[object]):
    """Notes how long its reader was ready to sleep."""

    timeouts: list[float | None]

    def get(self, block: bool = True, timeout: float | None = None) -> object:
        self.timeouts.append(timeout)
        return super().get(block, timeout)


@dataclass
class Rig:
    transport: ScriptedTransport
    mover: BlockMover
    answers: Answers
    crashed: threading.Event

    def settle(self) -> None:
        """Returns when everything ordered so far has been done and polled once."""
        for _ in range(2):
            self.mover.offers()


def started(transport: ScriptedTransport, on_crash: Callable[[], object]) -> BlockMover:
    progress = StepProgress(RANK.layout.num_layers)
    carrier = Carrier({"a": transport}, memory_of_rank(), RANK, progress, SystemClock())
    mover = BlockMover(carrier, on_crash=lambda: on_crash() and None)
    mover.add_peer(rank_peer()).result(TIMEOUT_S)
    return mover


@pytest.fixture
def rig() -> Iterator[Rig]:
    transport, crashed = ScriptedTransport(), threading.Event()
    mover = started(transport, crashed.set)
    yield Rig(transport, mover, Answers(), crashed)
    mover.close()


def test_move_ends_callback_is_called_once_with_no_error(rig: Rig) -> None:
    rig.mover.move(writing(1), rig.answers.of("a"))
    rig.settle()
    assert rig.answers.ended.empty()
    rig.transport.transfers[0].outcome = TransferState.DONE
    assert rig.answers.next() == ("a", None)
    rig.settle()
    assert rig.answers.ended.empty()
    assert rig.transport.calls == ["add decode-0@1", "write decode-0@1 [4, 5, 6, 7] [4, 5, 6, 7]"]


def test_moves_that_end_at_once_are_answered_in_order(rig: Rig) -> None:
    rig.transport.first_outcomes = [TransferState.DONE] * 50
    for i in range(50):
        rig.mover.move(writing(i % 16), rig.answers.of(str(i)))
    assert [rig.answers.next() for _ in range(50)] == [(str(i), None) for i in range(50)]


def test_callback_may_order_the_next_move(rig: Rig) -> None:
    rig.transport.first_outcomes = [TransferState.DONE] * 2
    rig.mover.move(writing(1), lambda _: rig.mover.move(writing(2), rig.answers.of("next")))
    assert rig.answers.next() == ("next", None)


def test_all_calls_come_from_one_thread(rig: Rig) -> None:
    rig.mover.move(writing(1), rig.answers.of("a"))
    rig.mover.set_inbound(1)
    rig.settle()
    assert rig.transport.threads == {"block-mover"}


def test_checksums_come_from_that_thread_too(rig: Rig) -> None:
    heard: Future[tuple[str, list[int]]] = Future()
    part = BlockPart([3], 0, 16, 0, 2)
    rig.mover.checksums([part, part], lambda sums: heard.set_result((threading.current_thread().name, list(sums))))
    thread, (one, other) = heard.result(TIMEOUT_S)
    assert thread == "block-mover"
    assert one == other


def test_moves_go_on_while_much_is_summed_up(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block is 1 MiB, so sixteen are four batches, with a look at the open move after each."""
    rig.mover.move(writing(1), rig.answers.of("m"))
    rig.settle()
    transfer, heard = rig.transport.transfers[0], Future[int]()
    gate = threading.Event()
    rig.mover.checksums([], lambda _: gate.wait(TIMEOUT_S) and None)
    polls_before: list[int] = []
    checksum = PoolReader.checksum

    def noted(reader: PoolReader, part: BlockPart) -> int:
        polls_before.append(transfer.num_polls)
        return checksum(reader, part)

    monkeypatch.setattr(PoolReader, "checksum", noted)
    rig.mover.checksums(
        [BlockPart([block], 0, 16, 0, 2) for block in range(16)], lambda sums: heard.set_result(len(sums))
    )
    gate.set()
    assert heard.result(TIMEOUT_S) == 16
    assert [len(list(batch)) for _, batch in itertools.groupby(polls_before)] == [4, 4, 4, 4]


def test_idle_mover_sleeps_until_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for nothing it neither wakes up nor calls the transport; with a move or a peer's open it does."""
    RecordingQueue.timeouts = timeouts = []
    monkeypatch.setattr(mover_module.queue, "SimpleQueue", RecordingQueue)
    transport = ScriptedTransport()
    mover = started(transport, pytest.fail)
    monkeypatch.undo()
    answers = Answers()
    for _ in range(3):
        mover.offers()
    assert set(timeouts) == {None}

    mover.move(writing(1), answers.of("a"))
    mover.offers()
    transport.transfers[0].wait_polls(5)
    assert POLL_S in timeouts
    assert "progress" not in transport.calls
    transport.transfers[0].outcome = TransferState.DONE
    answers.next()
    num_polls = transport.transfers[0].num_polls
    timeouts.clear()
    mover.offers()
    mover.offers()
    assert set(timeouts[-1:]) <= {None}
    assert transport.transfers[0].num_polls == num_polls

    mover.set_inbound(2)
    for _ in range(3):
        assert transport.progressed.acquire(timeout=TIMEOUT_S)
    assert INBOUND_POLL_S in timeouts
    mover.set_inbound(0)
    mover.offers()
    num_calls = len(transport.calls)
    timeouts.clear()
    mover.offers()
    mover.offers()
    assert set(timeouts) == {None}
    assert len(transport.calls) == num_calls
    mover.close()


def test_expected_peer_is_helped_along_for_a_while(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rig.mover.add_peer(rank_peer(OTHER, is_expected=True)).result(TIMEOUT_S) == ""
    for _ in range(3):
        assert rig.transport.progressed.acquire(timeout=TIMEOUT_S)
    monkeypatch.setattr(mover_module, "CONNECTING_S", 0.0)
    rig.mover.add_peer(rank_peer(OTHER, is_expected=True)).result(TIMEOUT_S)
    rig.settle()
    num_calls = len(rig.transport.calls)
    rig.settle()
    assert len(rig.transport.calls) == num_calls


def test_add_peer_fails_future_has_the_error(rig: Rig) -> None:
    with pytest.raises(HandoffError, match="metadata of decode-1@1"):
        rig.mover.add_peer(rank_peer(OTHER, metadata=b"nonsense")).result(TIMEOUT_S)


def test_add_peer_that_fails_by_a_defect_is_refused_and_others_are_served(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a peer says of itself must not end this worker."""

    def defect(*_arguments: object) -> str:
        raise struct.error("unpack_from requires a buffer")

    with monkeypatch.context() as patched:
        patched.setattr(rig.transport, "add_peer", defect)
        with pytest.raises(HandoffError, match="worker decode-1@1 could not be added, by a defect: error"):
            rig.mover.add_peer(rank_peer(OTHER)).result(TIMEOUT_S)
    assert rig.mover.add_peer(rank_peer(OTHER)).result(TIMEOUT_S) == "thin air"
    assert not rig.crashed.is_set()


def test_add_peer_whose_waiter_is_gone_is_not_done_and_hurts_nobody(rig: Rig) -> None:
    gate = threading.Event()
    rig.transport.first_outcomes = [TransferState.DONE]
    rig.mover.move(writing(0), lambda _: gate.wait(TIMEOUT_S) and None)
    future = rig.mover.add_peer(rank_peer(OTHER))
    assert future.cancel()
    gate.set()
    rig.settle()
    assert rig.transport.peers == {PEER}
    assert not rig.crashed.is_set()


def test_dead_peer_is_forgotten_no_earlier_than_the_transport_has_taken_in_its_bytes(rig: Rig) -> None:
    gate = threading.Event()
    rig.transport.first_outcomes = [TransferState.DONE]
    rig.mover.move(writing(0), lambda _: gate.wait(TIMEOUT_S) and None)
    removed = rig.mover.remove_peer(PEER, is_dead=True)
    assert not removed.done()
    assert not removed.cancel()
    gate.set()
    removed.result(TIMEOUT_S)
    assert rig.transport.calls[-1] == "remove decode-0@1"


@pytest.mark.parametrize("is_dead", [False, True])
def test_remove_peer_is_done_in_its_turn(rig: Rig, *, is_dead: bool) -> None:
    rig.mover.move(writing(0), rig.answers.of("m"))
    assert rig.mover.remove_peer(PEER, is_dead=is_dead).result(TIMEOUT_S) is None
    assert rig.transport.peers == (set() if is_dead else {PEER})
    assert rig.answers.ended.empty() == (not is_dead)


def test_close_with_open_moves_ends_the_thread_and_the_transport() -> None:
    transport, answers = ScriptedTransport(), Answers()
    mover = started(transport, pytest.fail)
    mover.move(writing(1), answers.of("a"))
    mover.close()
    assert transport.calls[-1] == "close"
    assert not mover._thread.is_alive()
    assert answers.ended.empty()


def test_defect_in_a_callback_tells_the_owner_that_the_mover_is_dead(caplog: pytest.LogCaptureFixture) -> None:
    """A mover that died silently would leave every later handoff waiting."""
    transport, crashed = ScriptedTransport(), threading.Event()
    mover = started(transport, crashed.set)
    transport.first_outcomes = [TransferState.DONE]
    mover.move(writing(1), lambda _: {}["defect"])
    assert crashed.wait(TIMEOUT_S)
    assert "the block mover died" in caplog.text
    mover.close()
