"""Workers that are restarted in turn: who goes when, who stands in, and what stops it."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
import pytest_asyncio

from core.errors import InvalidRequestError, StaleEpochError
from core.events import WorkerLoad
from core.request import Role
from router.roles import restarts
from router.roles.changes import RoleStage
from router.roles.restarts import LEAVE_SLACK_S, RETURN_TIMEOUT_S, RestartOrder
from tests.router.builders import RecordingLink, generation_request
from tests.router.roles.world import DRAIN_TIMEOUT_S, RoleWorld, Watching, worker

WAIT_S = 10.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restarts, "LOOK_S", 0.001)


@pytest_asyncio.fixture
async def world() -> RoleWorld:
    names = [("p0", Role.PREFILL), ("p1", Role.PREFILL), ("d0", Role.DECODE), ("d1", Role.DECODE)]
    return RoleWorld(*(worker(name, role) for name, role in names))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.001)


def order(*names: str, **fields: object) -> RestartOrder:
    return RestartOrder(names, **fields)  # type: ignore[arg-type]


def roll(world: RoleWorld, *names: str, **fields: object) -> Watching:
    return Watching(world.restarts.restart(order(*names, **fields), "me"))


def announce(world: RoleWorld, link: RecordingLink) -> None:
    """The worker says that it leaves."""
    before = link.role_state
    link.hello, link.is_leaving = replace(link.attached, role_state=before.leaving()), True
    world.heard.on_role_state(link, before)


async def leaves(world: RoleWorld, name: str) -> None:
    """The worker is told to leave, and does."""
    link = world.link(name)
    await until(lambda: link.leaves)
    announce(world, link)
    world.lose(link)


def comes_back(world: RoleWorld, name: str, role: Role) -> RecordingLink:
    """Its next process attaches as what workers of its name start as, and reports."""
    link = worker(name, role, incarnation=2)
    link.load = WorkerLoad(blocks_total=1)
    world.attach(link)
    return link


async def obeys(world: RoleWorld, name: str) -> None:
    await until(lambda: world.link(name).order is not None)
    world.obey(name)


def leaving_now(world: RoleWorld) -> list[str]:
    return [link.worker.name for link in world.fleet.links() if link.leaves]


async def test_workers_go_one_after_another_each_when_the_one_before_is_back(world: RoleWorld) -> None:
    watching = roll(world)
    for name, role in (("d0", Role.DECODE), ("d1", Role.DECODE), ("p0", Role.PREFILL), ("p1", Role.PREFILL)):
        await until(lambda: leaving_now(world))
        assert leaving_now(world) == [name]
        assert world.link(name).leaves == [DRAIN_TIMEOUT_S]
        await leaves(world, name)
        await asyncio.sleep(0.01)
        assert leaving_now(world) == []
        comes_back(world, name, role)
    last = await watching.to_the_end()
    assert (last.stage, last.message) == (RoleStage.VERIFIED, "4 worker(s) restarted")
    assert {(action.action, action.outcome) for action in world.director.actions()} == {
        ("restart d0, d1, p0, p1", "done")
    }


async def test_what_is_still_there_is_told(world: RoleWorld) -> None:
    generation = world.dispatcher.submit(generation_request())
    name = generation.placement.decode.worker.name
    watching = roll(world, name)
    await until(lambda: world.link(name).leaves)
    announce(world, world.link(name))
    await until(lambda: any(each.num_leaving for each in watching.told))
    assert watching.told[-1].message == f"{name} leaves; 1 request(s) are still there"
    world.lose(world.link(name))
    comes_back(world, name, Role.DECODE)
    await watching.to_the_end()


async def test_worker_is_back_when_it_is_what_it_was(world: RoleWorld) -> None:
    """It starts as what its name says, and the router orders it into its role."""
    watching = Watching(world.director.set_role("d0", Role.PREFILL, "me"))
    await watching.until(1)
    world.obey("d0")
    rolling = roll(world, "d0")
    await leaves(world, "d0")
    comes_back(world, "d0", Role.DECODE)
    await asyncio.sleep(0.01)
    assert not rolling.task.done()
    await obeys(world, "d0")
    assert (await rolling.to_the_end()).stage is RoleStage.VERIFIED
    state = world.link("d0").role_state
    assert (state.role, state.is_pinned, state.is_leaving) == (Role.PREFILL, True, False)


async def test_as_many_are_away_at_once_as_may_be(world: RoleWorld) -> None:
    rolling = roll(world, "d0", "p0", "p1", max_unavailable=2)
    await until(lambda: len(leaving_now(world)) == 2)
    await asyncio.sleep(0.01)
    assert leaving_now(world) == ["d0", "p0"]
    rolling.task.cancel()
    await world.restarts.close()


async def test_two_that_go_at_once_do_not_rely_on_each_other(world: RoleWorld) -> None:
    rolling = roll(world, "d0", "d1", max_unavailable=2)
    await obeys(world, "p0")
    assert world.link("p0").role_state.role is Role.MIXED
    await until(lambda: leaving_now(world) == ["d0", "d1"])
    rolling.task.cancel()
    await world.restarts.close()


async def test_last_worker_of_a_half_has_another_stand_in_until_it_is_back() -> None:
    world = RoleWorld(worker("p", Role.PREFILL), worker("d", Role.DECODE))
    watching = roll(world, "d")
    await obeys(world, "p")
    assert world.link("p").role_state.role is Role.MIXED
    await leaves(world, "d")
    comes_back(world, "d", Role.DECODE)
    await obeys(world, "p")
    state = world.link("p").role_state
    assert (state.role, state.is_pinned) == (Role.PREFILL, False)
    await watching.to_the_end()
    assert {"p is prefill again", "d is back as decode"} <= {each.message for each in watching.told}


async def test_only_worker_is_refused_unless_it_is_forced() -> None:
    world = RoleWorld(worker("m", Role.MIXED))
    with pytest.raises(InvalidRequestError, match=r"m is the last that computes prompts .* with --force requests"):
        await anext(world.restarts.restart(order("m"), "me"))
    assert world.director.actions()[0].outcome.startswith("refused: ")
    watching = roll(world, "m", is_forced=True)
    await leaves(world, "m")
    comes_back(world, "m", Role.MIXED)
    assert (await watching.to_the_end()).stage is RoleStage.VERIFIED


async def test_unknown_worker_is_refused_before_anybody_leaves(world: RoleWorld) -> None:
    with pytest.raises(InvalidRequestError, match="no worker 'd7' is attached"):
        await anext(world.restarts.restart(order("d0", "d7"), "me"))
    assert leaving_now(world) == []


async def test_second_restart_is_refused_while_one_is_under_way(world: RoleWorld) -> None:
    rolling = roll(world, "d0")
    await until(lambda: leaving_now(world))
    with pytest.raises(StaleEpochError, match="a restart of workers is under way"):
        await anext(world.restarts.restart(order("d1"), "you"))
    rolling.task.cancel()
    await world.restarts.close()


async def test_restart_goes_on_when_nobody_watches(world: RoleWorld) -> None:
    rolling = roll(world, "d0", "d1")
    await rolling.until(1)
    rolling.task.cancel()
    for name in ("d0", "d1"):
        await leaves(world, name)
        comes_back(world, name, Role.DECODE)
    await until(world.director.actions)
    assert world.director.actions()[0].outcome == "done"


async def test_worker_that_does_not_leave_stops_the_restart(world: RoleWorld) -> None:
    watching = roll(world, "d0", "d1")
    await until(lambda: leaving_now(world))
    world.clock.advance(DRAIN_TIMEOUT_S + LEAVE_SLACK_S)
    last = await watching.to_the_end()
    assert last.stage is RoleStage.FAILED
    assert last.message.startswith("worker d0@1 has not left within 60 s")
    assert last.message.endswith("0 restarted, 1 left alone")
    assert not world.link("d1").leaves
    assert world.director.actions()[0].outcome.startswith("failed: worker d0@1")


async def test_worker_that_does_not_come_back_stops_the_restart_and_its_stand_in_stays_what_it_was() -> None:
    world = RoleWorld(worker("p", Role.PREFILL), worker("d", Role.DECODE))
    watching = roll(world, "d")
    await obeys(world, "p")
    await leaves(world, "d")
    await until(lambda: any(each.stage is RoleStage.CHANGED for each in watching.told))
    world.clock.advance(RETURN_TIMEOUT_S)
    await obeys(world, "p")
    assert (await watching.to_the_end()).stage is RoleStage.FAILED
    assert world.link("p").role_state.role is Role.PREFILL


async def test_worker_that_dies_instead_of_leaving_stops_the_restart(world: RoleWorld) -> None:
    watching = roll(world, "d0", "d1")
    await until(lambda: leaving_now(world))
    world.lose(world.link("d0"))
    assert "worker d0@1 was lost before it could leave" in (await watching.to_the_end()).message


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_unavailable": 0}, "0 workers may be unavailable"),
        ({"drain_timeout_s": -1.0}, "the drain timeout is -1"),
        ({"drain_timeout_s": float("inf")}, "the drain timeout is inf"),
    ],
)
def test_order_that_makes_no_sense_says_so(fields: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        order("d0", **fields)
