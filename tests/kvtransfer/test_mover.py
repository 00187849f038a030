import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

import pytest

from core.errors import HandoffError
from core.ids import WorkerId
from kvtransfer import mover as mover_module
from kvtransfer.move import Direction
from kvtransfer.mover import INBOUND_POLL_S, POLL_S, POOL_SHAPE, BlockMover
from kvtransfer.runs import RunIds, RunTable
from kvtransfer.transport import TransferState, Transport
from tests.kvtransfer.fleets import random_memory

TIMEOUT_S = 10.0
SCRIPTED, NONSENSE = (POOL_SHAPE.pack(256, 4) + words for words in (b"scripted", b"nonsense"))
PEER, OTHER = WorkerId("decode-0", 1), WorkerId("decode-1", 1)


@dataclass
class ScriptedWrite:
    """In flight until its outcome is set."""

    outcome: TransferState | HandoffError | Exception = TransferState.IN_FLIGHT
    num_polls: int = 0
    polled: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def poll(self) -> TransferState:
        self.num_polls += 1
        self.polled.release()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def wait_polls(self, num_polls: int) -> None:
        for _ in range(num_polls):
            assert self.polled.acquire(timeout=TIMEOUT_S)


class ScriptedTransport:
    """A transport without bytes: writes end when the test says so."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.writes: list[ScriptedWrite] = []
        self.peers: set[WorkerId] = set()
        self.progressed = threading.Semaphore(0)
        self.first_outcomes: list[TransferState | HandoffError] = []
        self.threads: set[str] = set()

    def metadata(self) -> bytes:
        return b"scripted"

    def add_peer(self, peer: WorkerId, metadata: bytes, _local: RunTable, _remote: RunTable) -> str:
        self._note(f"add {peer}")
        if metadata != b"scripted":
            raise HandoffError(f"metadata of {peer} is {metadata!r}")
        self.peers.add(peer)
        return "memory"

    def expect_peer(self, peer: WorkerId, metadata: bytes) -> None:
        self._note(f"expect {peer} {metadata!r}")

    def remove_peer(self, peer: WorkerId) -> None:
        self._note(f"remove {peer}")
        self.peers.discard(peer)

    def post(self, peer: WorkerId, direction: Direction, local: RunIds, remote: RunIds) -> ScriptedWrite:
        self._note(f"{direction.value} {peer} {local.tolist()} {remote.tolist()}")
        if peer not in self.peers:
            raise HandoffError(f"{peer} is not connected")
        write = ScriptedWrite(self.first_outcomes.pop(0) if self.first_outcomes else TransferState.IN_FLIGHT)
        self.writes.append(write)
        return write

    def progress(self) -> None:
        self._note("progress")
        self.progressed.release()

    def close(self) -> None:
        self._note("close")

    def _note(self, call: str) -> None:
        self.calls.append(call)
        self.threads.add(threading.current_thread().name)


class Answers:
    """Callbacks that note who ended, how and in which order."""

    def __init__(self) -> None:
        self.ended: queue.SimpleQueue[tuple[str, HandoffError | None]] = queue.SimpleQueue()

    def of(self, name: str) -> Callable[[HandoffError | None], None]:
        return lambda error: self.ended.put((name, error))

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
        """Returns when everything posted so far has been done and polled once."""
        for _ in range(2):
            self.mover.metadata()


@pytest.fixture
def rig() -> Iterator[Rig]:
    transport, crashed = ScriptedTransport(), threading.Event()
    as_protocol: Transport = transport
    mover = BlockMover(as_protocol, random_memory(256, 4), on_crash=crashed.set)
    mover.add_peer(PEER, SCRIPTED).result(TIMEOUT_S)
    yield Rig(transport, mover, Answers(), crashed)
    mover.close()


def test_write_ends_callback_is_called_once_with_no_error(rig: Rig) -> None:
    rig.mover.write(PEER, [1, 2], [3, 4], rig.answers.of("a"))
    rig.settle()
    assert rig.answers.ended.empty()
    rig.transport.writes[0].outcome = TransferState.DONE
    assert rig.answers.next() == ("a", None)
    rig.settle()
    assert rig.answers.ended.empty()
    assert rig.transport.calls == ["add decode-0@1", "write decode-0@1 [1, 2] [3, 4]"]


def test_writes_are_posted_in_order_and_answered_as_they_end(rig: Rig) -> None:
    for name in "abc":
        rig.mover.write(PEER, [ord(name)], [0], rig.answers.of(name))
    rig.settle()
    assert rig.transport.calls[1:] == [f"write decode-0@1 [{ord(name)}] [0]" for name in "abc"]
    for i in (1, 2, 0):
        rig.transport.writes[i].outcome = TransferState.DONE
        assert rig.answers.next() == ("abc"[i], None)


def test_writes_that_end_at_once_are_answered_in_order(rig: Rig) -> None:
    rig.transport.first_outcomes = [TransferState.DONE] * 50
    for i in range(50):
        rig.mover.write(PEER, [i], [i], rig.answers.of(str(i)))
    assert [rig.answers.next() for _ in range(50)] == [(str(i), None) for i in range(50)]


def test_write_fails_only_its_own_callback_hears(rig: Rig) -> None:
    rig.mover.write(PEER, [1], [1], rig.answers.of("bad"))
    rig.mover.write(PEER, [2], [2], rig.answers.of("good"))
    rig.settle()
    error = HandoffError("the link broke")
    rig.transport.writes[0].outcome = error
    assert rig.answers.next() == ("bad", error)
    rig.settle()
    assert rig.answers.ended.empty()
    rig.transport.writes[1].outcome = TransferState.DONE
    assert rig.answers.next() == ("good", None)


def test_write_cannot_be_posted_callback_hears_and_others_go_on(rig: Rig) -> None:
    rig.mover.write(OTHER, [1], [1], rig.answers.of("unknown"))
    rig.mover.write(PEER, [2], [2], rig.answers.of("known"))
    name, error = rig.answers.next()
    assert (name, str(error)) == ("unknown", "decode-1@1 is not connected")
    rig.settle()
    rig.transport.writes[0].outcome = TransferState.DONE
    assert rig.answers.next() == ("known", None)


def test_callback_may_post_the_next_write(rig: Rig) -> None:
    rig.transport.first_outcomes = [TransferState.DONE] * 2
    rig.mover.write(PEER, [1], [1], lambda _: rig.mover.write(PEER, [2], [2], rig.answers.of("next")))
    assert rig.answers.next() == ("next", None)


def test_all_calls_come_from_one_thread(rig: Rig) -> None:
    rig.mover.write(PEER, [1], [1], rig.answers.of("a"))
    rig.mover.set_inbound(1)
    rig.settle()
    assert rig.transport.threads == {"block-mover"}


def test_idle_mover_sleeps_until_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for nothing it neither wakes up nor calls the transport; with a write or a peer's open it does."""
    RecordingQueue.timeouts = timeouts = []
    monkeypatch.setattr(mover_module.queue, "SimpleQueue", RecordingQueue)
    transport = ScriptedTransport()
    mover = BlockMover(transport, random_memory(256, 4), on_crash=pytest.fail)
    monkeypatch.undo()
    mover.add_peer(PEER, SCRIPTED).result(TIMEOUT_S)
    answers = Answers()
    for _ in range(3):
        mover.metadata()
    assert set(timeouts) == {None}

    mover.write(PEER, [1], [1], answers.of("a"))
    mover.metadata()
    transport.writes[0].wait_polls(5)
    assert POLL_S in timeouts
    assert "progress" not in transport.calls
    transport.writes[0].outcome = TransferState.DONE
    answers.next()
    num_polls = transport.writes[0].num_polls
    timeouts.clear()
    mover.metadata()
    mover.metadata()
    assert set(timeouts[-1:]) <= {None}
    assert transport.writes[0].num_polls == num_polls

    mover.set_inbound(2)
    for _ in range(3):
        assert transport.progressed.acquire(timeout=TIMEOUT_S)
    assert INBOUND_POLL_S in timeouts
    mover.set_inbound(0)
    mover.metadata()
    num_calls = len(transport.calls)
    timeouts.clear()
    mover.metadata()
    mover.metadata()
    assert set(timeouts) == {None}
    assert len(transport.calls) == num_calls
    mover.close()


def test_expected_connection_is_helped_along_for_a_while(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.mover.expect_connection()
    for _ in range(3):
        assert rig.transport.progressed.acquire(timeout=TIMEOUT_S)
    monkeypatch.setattr(mover_module, "CONNECTING_S", 0.0)
    rig.mover.expect_connection()
    rig.settle()
    num_calls = len(rig.transport.calls)
    rig.settle()
    assert len(rig.transport.calls) == num_calls


def test_add_peer_fails_future_has_the_error_and_a_second_try_may_succeed(rig: Rig) -> None:
    with pytest.raises(HandoffError, match="metadata of decode-1@1"):
        rig.mover.add_peer(OTHER, NONSENSE).result(TIMEOUT_S)
    rig.mover.add_peer(OTHER, SCRIPTED).result(TIMEOUT_S)
    assert rig.transport.peers == {PEER, OTHER}


def test_add_peer_whose_waiter_is_gone_is_not_done_and_hurts_nobody(rig: Rig) -> None:
    gate = threading.Event()
    rig.transport.first_outcomes = [TransferState.DONE]
    rig.mover.write(PEER, [0], [0], lambda _: gate.wait(TIMEOUT_S) and None)
    future: Future[None] = rig.mover.add_peer(OTHER, SCRIPTED)
    assert future.cancel()
    gate.set()
    rig.settle()
    assert rig.transport.peers == {PEER}
    assert not rig.crashed.is_set()


def test_remove_peer_waits_for_its_writes_and_refuses_new_ones(rig: Rig) -> None:
    """Forgotten under a write, a peer would make the write look ended while its blocks are still read."""
    rig.mover.add_peer(OTHER, SCRIPTED).result(TIMEOUT_S)
    rig.mover.write(PEER, [1], [1], rig.answers.of("open"))
    rig.mover.write(OTHER, [1], [1], rig.answers.of("other"))
    rig.mover.remove_peer(PEER)
    rig.mover.write(PEER, [2], [2], rig.answers.of("late"))
    name, error = rig.answers.next()
    assert (name, str(error)) == ("late", "worker decode-0@1 is gone; the request is placed again")
    rig.settle()
    assert PEER in rig.transport.peers

    rig.transport.writes[0].outcome = TransferState.DONE
    assert rig.answers.next() == ("open", None)
    rig.settle()
    assert rig.transport.peers == {OTHER}
    assert rig.transport.writes[1].outcome is TransferState.IN_FLIGHT


def test_remove_peer_without_writes_is_done_at_once(rig: Rig) -> None:
    rig.mover.remove_peer(PEER)
    rig.settle()
    assert rig.transport.peers == set()


def test_close_with_open_writes_ends_the_thread_and_the_transport() -> None:
    transport, answers = ScriptedTransport(), Answers()
    mover = BlockMover(transport, random_memory(256, 4), on_crash=pytest.fail)
    mover.add_peer(PEER, SCRIPTED).result(TIMEOUT_S)
    mover.write(PEER, [1], [1], answers.of("a"))
    mover.close()
    assert transport.calls[-1] == "close"
    assert not mover._thread.is_alive()
    assert answers.ended.empty()


def test_defect_in_a_callback_tells_the_owner_that_the_mover_is_dead(caplog: pytest.LogCaptureFixture) -> None:
    """A mover that died silently would leave every later handoff waiting."""
    transport, crashed = ScriptedTransport(), threading.Event()
    mover = BlockMover(transport, random_memory(256, 4), on_crash=crashed.set)
    mover.add_peer(PEER, SCRIPTED).result(TIMEOUT_S)
    transport.first_outcomes = [TransferState.DONE]
    mover.write(PEER, [1], [1], lambda _: {}["defect"])
    assert crashed.wait(TIMEOUT_S)
    assert "the block mover died" in caplog.text
    mover.close()
