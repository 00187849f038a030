import queue
import socket

import pytest

from core.errors import ConfigError, HandoffError
from core.ids import WorkerId
from kvtransfer.pair_calls import CallListener, call
from kvtransfer.pair_store import FRAME, PairStore

ONE, OTHER = WorkerId("one", 1), WorkerId("other", 2)
TIMEOUT_S = 20.0


class Answered:
    """A listener, and who has called it."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[tuple[str, PairStore]] = queue.SimpleQueue()
        self.listener = CallListener("127.0.0.1", lambda *heard: self.calls.put(heard))

    def next(self) -> tuple[str, PairStore]:
        return self.calls.get(timeout=TIMEOUT_S)


@pytest.fixture
def answered() -> Answered:
    answered = Answered()
    yield answered
    answered.listener.close()


def test_what_is_set_at_either_end_is_found_at_both(answered: Answered) -> None:
    here = call(ONE, OTHER, answered.listener.address)
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
    here = call(ONE, OTHER, answered.listener.address)
    caller, there = answered.next()
    assert caller == "one@1"
    here.close()
    there.close()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "127.0.0.1:x"])
def test_call_to_nobody_is_refused_with_the_address(address: str) -> None:
    with pytest.raises(HandoffError, match=f"worker other@2 cannot be reached at '{address}'"):
        call(ONE, OTHER, address)


def test_host_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"host is '192\.0\.2\.1'; no port can be bound there"):
        CallListener("192.0.2.1", print)
