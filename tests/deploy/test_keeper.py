"""What is started again, when, and what is said of it."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import ManualClock
from core.errors import CheckpointError, UnavailableError
from core.ids import WorkerId
from core.members import MemberKind, MemberState
from core.processes import ProcessId, RankProcess
from deploy import keeper as keeper_module
from deploy.keeper import TRANSITIONS, Event, Keeper, Sight
from deploy.restarts import RestartPolicy

POLICY = RestartPolicy(stable_s=10.0, first_delay_s=1.0, max_delay_s=4.0, max_crashes=3)
DEATH = UnavailableError("its process has died")
WAIT_S = 20.0


@dataclass
class FakeMember:
    """A member that is as the test says, and checks the order of calls."""

    name: str = "decode-0"
    kind: MemberKind = MemberKind.WORKER
    num_starts: int = 0
    can_end: bool = True
    sight: Sight = field(default_factory=lambda: Sight(MemberState.STARTING))
    is_alive: bool = False
    is_stopped: bool = False

    def start(self) -> None:
        assert not self.is_alive, "nothing of an earlier start is left"
        self.is_alive = True
        self.num_starts += 1
        self.sight = Sight(MemberState.STARTING)

    def look(self) -> Sight:
        return self.sight

    def end(self) -> bool:
        self.is_alive = self.is_alive and not self.can_end
        return self.can_end

    def stop(self) -> None:
        self.is_stopped = True

    def serve(self) -> WorkerId:
        worker = WorkerId(self.name, self.num_starts)
        process = RankProcess("n", ProcessId(self.num_starts, 1.0))
        self.sight = Sight(MemberState.RUNNING, address="h:1", processes=(process,), worker=worker)
        return worker

    def die(self) -> None:
        self.sight = Sight(MemberState.ENDING, DEATH)


class World:
    def __init__(self, *members: FakeMember) -> None:
        self.clock = ManualClock()
        self.dead: list[WorkerId] = []
        self.members = members or (FakeMember(),)
        self.keeper = Keeper(self.members, self.dead.append, self.clock, POLICY)

    def tick_for(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.keeper.tick()

    def states(self) -> list[MemberState]:
        return [status.state for status in self.keeper.statuses()]


@pytest.fixture(autouse=True, scope="module")
def patient() -> Iterator[None]:
    """A tick is over when all members have had theirs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keeper_module, "PATIENCE_S", WAIT_S)
        yield


@pytest.fixture
def world() -> World:
    world = World()
    world.keeper.tick()
    return world


def test_worker_that_died_is_buried_before_it_is_started_again(world: World) -> None:
    (member,) = world.members
    first = member.serve()
    world.tick_for(POLICY.stable_s)
    (status,) = world.keeper.statuses()
    assert (status.state, status.address, status.processes[0].process.pid) == (MemberState.RUNNING, "h:1", 1)
    member.can_end = False
    member.die()
    world.tick_for(1.0)
    assert (world.states(), world.dead, member.num_starts) == ([MemberState.ENDING], [], 1)
    member.can_end = True
    world.tick_for(1.0)
    world.tick_for(0.0)
    assert (world.states(), world.dead, member.num_starts) == ([MemberState.STARTING], [first], 2)
    (status,) = world.keeper.statuses()
    assert (status.num_restarts, status.processes, status.reason) == (1, (), DEATH.message)
    member.serve()
    world.tick_for(1.0)
    (status,) = world.keeper.statuses()
    assert (status.state, status.reason) == (MemberState.RUNNING, "")


def test_crash_loop_is_slowed_down_then_given_up_and_says_why(world: World) -> None:
    (member,) = world.members
    member.die()
    world.tick_for(0.0)  # the first crash has no delay
    world.tick_for(0.0)
    assert member.num_starts == 2
    member.die()
    world.tick_for(0.0)
    world.tick_for(0.9)
    assert (world.states(), member.num_starts) == ([MemberState.WAITING], 2)
    world.tick_for(0.1)
    assert member.num_starts == 3
    member.die()
    world.tick_for(0.0)
    world.tick_for(3600.0)
    assert (world.states(), member.num_starts) == ([MemberState.GIVEN_UP], 3)
    (status,) = world.keeper.statuses()
    assert status.reason == (
        "it crashed 3 times in a row; start the cluster anew when what is wrong is mended: its process has died"
    )


def test_worker_that_waits_for_room_says_so_and_has_not_crashed(world: World) -> None:
    (member,) = world.members
    member.sight = Sight(MemberState.STARTING, UnavailableError("no node has room"))
    world.tick_for(3600.0)
    (status,) = world.keeper.statuses()
    assert (status.state, status.reason, member.num_starts) == (MemberState.STARTING, "no node has room", 1)
    member.serve()
    world.tick_for(0.0)
    assert world.keeper.statuses()[0].reason == ""


def test_members_do_not_wait_for_each_other() -> None:
    world = World(FakeMember("a"), FakeMember("b"))
    world.keeper.tick()
    first, second = world.members
    second.serve()
    first.can_end = False
    first.die()
    world.tick_for(1.0)
    assert world.states() == [MemberState.ENDING, MemberState.RUNNING]


def test_member_whose_machine_does_not_answer_holds_up_no_other_and_is_left_to_its_tick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers, asked = threading.Event(), threading.Semaphore(0)

    class Away(FakeMember):
        def end(self) -> bool:
            asked.release()
            assert answers.wait(WAIT_S)
            return True

    world = World(Away("a"), FakeMember("b"))
    world.keeper.tick()
    away, other = world.members
    away.die()
    served = other.serve()
    monkeypatch.setattr(keeper_module, "PATIENCE_S", 0.0)
    while not world.keeper.running_workers():
        world.keeper.tick()
    assert list(world.keeper.running_workers()) == [served]
    assert asked.acquire(timeout=WAIT_S)
    world.keeper.tick()
    answers.set()
    world.keeper.stop()
    assert not asked.acquire(blocking=False), "one call of a member at a time"
    assert all(member.is_stopped for member in world.members)


def test_defect_in_one_member_leaves_the_others_looked_after() -> None:
    class Defect(FakeMember):
        def look(self) -> Sight:
            raise ZeroDivisionError

    world = World(Defect("a"), FakeMember("b"))
    world.members[1].serve()
    world.keeper.tick()
    world.members[1].serve()
    world.keeper.tick()
    assert world.states() == [MemberState.STARTING, MemberState.RUNNING]


def test_first_start_that_fails_is_told_and_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(FakeMember):
        def look(self) -> Sight:
            return Sight(MemberState.ENDING, CheckpointError("no such tensor"))

    monkeypatch.setattr(keeper_module, "START_POLL_S", 0.0)
    world = World(Broken("a"))
    with pytest.raises(CheckpointError, match="no such tensor"):
        world.keeper.start()
    assert world.members[0].num_starts == 1


def test_start_waits_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ready(FakeMember):
        def look(self) -> Sight:
            self.serve()
            return self.sight

    monkeypatch.setattr(keeper_module, "START_POLL_S", 0.0)
    world = World(Ready("a"), Ready("b"))
    world.keeper.start()
    assert world.states() == [MemberState.RUNNING] * 2
    world.keeper.stop()
    assert all(member.is_stopped for member in world.members)


def test_thread_starts_again_what_died(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "TICK_S", 0.001)
    again, before = threading.Event(), set(threading.enumerate())

    class Watched(FakeMember):
        def start(self) -> None:
            super().start()
            if self.num_starts > 1:
                again.set()

    world = World(Watched())
    world.keeper.tick()
    world.members[0].die()
    with world.keeper.running():
        assert again.wait(WAIT_S)
    world.keeper.stop()
    assert set(threading.enumerate()) <= before


def test_every_transition_starts_where_another_ends() -> None:
    reached = {MemberState.WAITING, *TRANSITIONS.values()}
    assert reached == set(MemberState)
    assert {state for state, _ in TRANSITIONS} == reached - {MemberState.GIVEN_UP}
    assert {event for _, event in TRANSITIONS} == set(Event)


@given(st.lists(st.sampled_from(["serve", "die", "stuck", "free", "second", "long"]), max_size=60))
def test_whatever_happens_no_incarnation_starts_beside_another_and_each_dead_one_is_told_once(
    moves: list[str],
) -> None:
    world = World()
    (member,) = world.members
    served: list[WorkerId] = []
    for move in moves:
        if move == "serve" and member.sight.state is MemberState.STARTING and member.is_alive:
            served.append(member.serve())
        elif move == "die" and member.is_alive:
            member.die()
        member.can_end = move != "stuck" if move in ("stuck", "free") else member.can_end
        world.tick_for({"second": 1.0, "long": 60.0}.get(move, 0.0))
        assert world.dead == sorted(set(world.dead))
        assert all(worker.incarnation < member.num_starts or not member.is_alive for worker in world.dead)
        assert set(world.dead) <= set(served)
