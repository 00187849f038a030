import os
from collections.abc import Iterator
from functools import partial

import pytest

from core.errors import InternalError
from deploy.bench.remote import IsCalled, Remote


class Adder:
    def __init__(self, first: int, is_called: IsCalled) -> None:
        if first < 0:
            raise ValueError(f"{first} is negative")
        self._sum = first
        self._is_called = is_called

    def add(self, number: int) -> int:
        self._sum += number
        return self._sum

    def wait(self) -> str:
        while not self._is_called(0.01):
            pass
        return "called"

    def surroundings(self) -> tuple[set[int], str]:
        return os.sched_getaffinity(0), os.environ["UCX_TLS"]

    def fail(self) -> None:
        os.write(1, b"about to fail")
        raise KeyError("absent")

    def die(self) -> None:
        os._exit(3)

    def close(self) -> None:
        pass


CORE = min(os.sched_getaffinity(0))


@pytest.fixture
def remote() -> Iterator[Remote]:
    with Remote(partial(Adder, 5), CORE, {"UCX_TLS": "tcp"}) as remote:
        yield remote


def test_calls_reach_one_object_in_a_process_of_its_own(remote: Remote) -> None:
    assert [remote.call("add", 1), remote.call("add", 2)] == [6, 8]
    assert remote.call("surroundings") == ({CORE}, "tcp")
    assert os.environ.get("UCX_TLS") != "tcp"
    assert remote.pid != os.getpid()


def test_next_call_ends_what_waits_for_it(remote: Remote) -> None:
    remote.start("wait")
    remote.start("add", 1)
    assert [remote.result(), remote.result()] == ["called", 6]


def test_error_comes_back_with_what_was_said_and_object_lives_on(remote: Remote) -> None:
    with pytest.raises(InternalError, match=r"KeyError\('absent'\)(.|\n)*about to fail"):
        remote.call("fail")
    assert remote.call("add", 1) == 6


def test_death_is_an_error_not_a_hang(remote: Remote) -> None:
    with pytest.raises(InternalError, match="died"):
        remote.call("die")


def test_object_that_cannot_be_made_says_why() -> None:
    with Remote(partial(Adder, -1), CORE, {}) as remote, pytest.raises(InternalError, match="-1 is negative"):
        remote.call("add", 1)
