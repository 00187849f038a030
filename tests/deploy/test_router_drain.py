"""Routers that are let end before their cluster stops."""

import pytest

from core.errors import UnreachableError
from deploy import router_drain
from deploy.router_drain import SLACK_S, drain_routers


class Router:
    """Has so many requests at one look after another, and is gone then."""

    def __init__(self, *counts: int) -> None:
        self.counts = list(counts)
        self.orders: list[float] = []

    def leave(self, drain_timeout_s: float) -> None:
        if not self.counts:
            raise UnreachableError("it is gone")
        self.orders.append(drain_timeout_s)
        if drain_timeout_s == 0:
            self.counts.clear()

    def num_requests(self) -> int:
        if not self.counts:
            raise UnreachableError("it is gone")
        return self.counts.pop(0)


class Hanging(Router):
    """Never ends its last request."""

    def num_requests(self) -> int:
        return 1


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router_drain, "LOOK_S", 0.0)


def test_routers_are_waited_for_until_all_are_gone_and_their_requests_are_told() -> None:
    routers, said = [Router(2, 2, 1), Router(1, 0)], list[str]()
    drain_routers(routers, 30.0, lambda: False, said.append)
    assert [router.orders for router in routers] == [[30.0], [30.0]]
    assert [line.partition(" ")[0] for line in said] == ["3", "2", "1"]
    assert said[0].startswith("3 request(s) are still under way; they have 30 s")


def test_router_that_is_gone_already_is_not_waited_for() -> None:
    drain_routers([Router()], 30.0, lambda: False, pytest.fail)


def test_those_that_are_left_are_told_once_to_end_at_once_when_nothing_is_to_be_waited_for() -> None:
    routers, answers = [Router(1), Router(*[1] * 1000)], iter([False, True])
    drain_routers(routers, 30.0, lambda: next(answers, True), lambda _: None)
    assert [router.orders for router in routers] == [[30.0], [30.0, 0.0]]


def test_router_that_does_not_go_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 0.0, 1.0, SLACK_S + 30.0])
    monkeypatch.setattr(router_drain.time, "monotonic", lambda: next(times))
    router = Hanging(1)
    drain_routers([router], 30.0, lambda: False, lambda _: None)
    assert router.orders == [30.0]
