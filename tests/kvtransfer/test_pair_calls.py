import errno
import queue
import socket
import threading

import pytest

from core.errors import ConfigError, HandoffError
from core.ids import WorkerId
from kvtransfer import pair_store
from kvtransfer.pair_calls import CallListener, call
from kvtransfer.pair_store import FRAME, MAX_FRAME_BYTES, PairStore

ONE, OTHER = WorkerId("one", 1), WorkerId("other", 2)
TIMEOUT_S = 20.0


class Answered:
    """A listener, and who has called it."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[tuple[str, PairStore]] = queue.SimpleQueue()
        self.listener = CallListener("127.0.0.1", lambda *heard: self.calls.put(heard))

    def called(self) -> PairStore:
        """The caller's end of a call as it should be."""
        return call(ONE, OTHER, self.listener.address, self.listener.secret)

    def next(self) -> tuple[str, PairStore]:
        return self.calls.get(timeout=TIMEOUT_S)


@pytest.fixture
def answered() -> Answered:
    answered = Answered()
    yield answered
    answered.listener.close()


def test_what_is_set_at_either_end_is_found_at_both(answered: Answered) -> None:
    here = answered.called()
    caller, there = answered.next()
    assert caller == "one@1"
    here.set("a", b"\x00from here")
    there.set("b", "from there")
    assert [end.get("a") for end in (here, there)] == [b"\x00from here"] * 2
    there.wait(["b", "a"])
    assert here.get("b") == b"from there"
    here.close()
    with pytest.raises(ConnectionError, match="has closed"):
        there.get("c")
    there.close()


def test_stranger_that_says_nonsense_is_not_heard_and_others_are(answered: Answered) -> None:
    host, port = answered.listener.address.split(":")
    for said in (b"", b"GET / HTTP/1.1\r\n\r\n", FRAME.pack(1 << 30, 1), FRAME.pack(6, 9) + b"caller"):
        with socket.create_connection((host, int(port))) as stranger:
            stranger.sendall(said)
    here = answered.called()
    caller, there = answered.next()
    assert caller == "one@1"
    here.close()
    there.close()


def test_caller_without_the_secret_is_turned_away_and_logged(
    answered: Answered, caplog: pytest.LogCaptureFixture
) -> None:
    for shown in ("", "guess", answered.listener.secret[:-1]):
        here = call(ONE, OTHER, answered.listener.address, shown)
        with pytest.raises(ConnectionError):
            here.get("anything")
        here.close()
    assert answered.calls.empty()
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["'one@1' calls the KV port without its secret"] * 3


def test_silent_caller_holds_up_nobody(answered: Answered) -> None:
    host, port = answered.listener.address.split(":")
    with socket.create_connection((host, int(port))) as silent:
        here = answered.called()
        caller, there = answered.next()
        assert caller == "one@1"
        answered.listener.close()
        assert silent.recv(1) == b""
    here.close()
    there.close()


def send_for_ever(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"x")


def test_caller_that_never_comes_to_an_end_is_hung_up_on(answered: Answered, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte in time is not enough."""
    monkeypatch.setattr(pair_store, "JOIN_S", 0.05)
    host, port = answered.listener.address.split(":")
    with socket.create_connection((host, int(port))) as slow:
        slow.sendall(FRAME.pack(0, MAX_FRAME_BYTES))
        slow.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with pytest.raises(ConnectionError):
            send_for_ever(slow)
    assert answered.calls.empty()


def test_call_that_cannot_be_taken_is_not_the_last(
    answered: Answered, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    accept, refused = socket.socket.accept, threading.Event()

    def refuse_once(listener: socket.socket) -> object:
        if not refused.is_set():
            refused.set()
            raise OSError(errno.EMFILE, "Too many open files")
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", refuse_once)
    for _ in range(2):  # the first one is taken by the call under way
        here = answered.called()
        _, there = answered.next()
        here.close()
        there.close()
    assert refused.is_set()
    assert "Too many open files" in caplog.text


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "127.0.0.1:x"])
def test_call_to_nobody_is_refused_with_the_address(address: str) -> None:
    with pytest.raises(HandoffError, match=f"worker other@2 cannot be reached at '{address}'"):
        call(ONE, OTHER, address, "s")


def test_host_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"host is '192\.0\.2\.1'; no port can be bound there"):
        CallListener("192.0.2.1", print)
