"""Which workers should have been met by now, and have not."""

import pytest

from core.clock import ManualClock
from core.ids import WorkerId
from core.processes import ProcessId, RankProcess
from deploy.strangers import MEET_S, Strangers

W1, W2 = WorkerId("w", 1), WorkerId("w", 2)
PROCESSES = (RankProcess("n", ProcessId(7, 1.0)),)
FOR_S = 15.0


class World:
    """Workers that run, and looks some seconds apart."""

    def __init__(self, *running: WorkerId) -> None:
        self.clock = ManualClock()
        self.running = dict.fromkeys(running, PROCESSES)
        self.strangers = Strangers(lambda: self.running, self.clock)

    def look_after(self, seconds: float, answering: str, *met: WorkerId, for_s: float = FOR_S) -> set[WorkerId]:
        self.clock.advance(seconds)
        return self.strangers.look(answering, met, for_s)


def test_worker_that_no_router_has_met_is_a_stranger_after_that_time() -> None:
    world = World(W1)
    assert world.look_after(0.0, "a") == set()
    assert world.look_after(14.0, "a") == set()
    assert world.look_after(1.0, "a") == {W1}


def test_worker_that_has_just_begun_to_run_has_time_to_be_met() -> None:
    world = World()
    world.look_after(0.0, "a")
    world.clock.advance(60.0)
    world.running[W1] = PROCESSES
    assert world.look_after(0.0, "a") == set()
    assert world.look_after(14.0, "a") == set()
    assert world.look_after(0.5, "a", W1) == set()
    assert world.look_after(14.0, "a") == set()
    del world.running[W1]
    assert world.look_after(60.0, "a") == set()
    world.running[W2] = PROCESSES
    assert world.look_after(0.0, "a") == set()


def test_worker_that_any_router_has_met_is_no_stranger() -> None:
    world = World(W1, W2)
    for _ in range(10):
        assert W1 not in world.look_after(5.0, "ab", W1)


@pytest.mark.parametrize("answering", ["b", "ab"])
def test_router_that_has_just_come_up_or_answers_again_has_time_to_meet_everybody(answering: str) -> None:
    world = World(W1)
    world.look_after(0.0, "b")
    world.look_after(30.0, "a")
    assert world.look_after(1.0, answering) == set()
    assert world.look_after(14.9, answering) == set()
    assert world.look_after(0.1, answering) == {W1}


def test_nobody_is_judged_when_no_router_answers() -> None:
    world = World(W1)
    world.look_after(0.0, "a")
    assert world.look_after(60.0, "") == set()
    assert world.look_after(0.0, "a") == set()


def test_short_timeout_leaves_time_to_go_round_the_routers() -> None:
    world = World(W1)
    world.look_after(0.0, "a", for_s=5.0)
    assert world.look_after(MEET_S - 0.1, "a", for_s=5.0) == set()
    assert world.look_after(0.1, "a", for_s=5.0) == {W1}
