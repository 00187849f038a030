import ctypes
import platform
import threading

import pytest

from worker import turns
from worker.turns import LONG_TURN_NS, SHORT_TURN_NS, take_turns_of

pytestmark = pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() not in turns.SYSCALL_NUMBERS, reason="turns are Linux's"
)


def turn_ns() -> int:
    attributes = turns._Attributes()
    number = turns.SYSCALL_NUMBERS[platform.machine()][1]
    assert ctypes.CDLL(None).syscall(number, 0, ctypes.byref(attributes), ctypes.sizeof(attributes), 0) == 0
    return int(attributes.runtime_ns)


def turns_of_a_thread(*lengths_ns: int) -> list[int]:
    """What a thread reads after each setting; threads of the tests keep theirs."""
    seen: list[int] = []

    def run() -> None:
        for length_ns in lengths_ns:
            take_turns_of(length_ns)
            seen.append(turn_ns())
        child = threading.Thread(target=lambda: seen.append(turn_ns()))
        child.start()
        child.join()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return seen


def test_turns_are_as_long_as_said_and_inherited() -> None:
    seen = turns_of_a_thread(SHORT_TURN_NS, LONG_TURN_NS)
    if seen[0] == 0:
        pytest.skip("this kernel's turns cannot be set")
    assert seen == [SHORT_TURN_NS, LONG_TURN_NS, LONG_TURN_NS]


def test_turns_of_an_unknown_machine_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    before = turn_ns()
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    take_turns_of(SHORT_TURN_NS)
    monkeypatch.undo()
    assert turn_ns() == before
