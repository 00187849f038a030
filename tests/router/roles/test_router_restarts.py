"""Routers that are restarted in turn, the one that is asked last."""

import pytest
import pytest_asyncio

from core.errors import InvalidRequestError, StaleEpochError, UnreachableError
from router.roles import router_restarts
from router.roles.changes import RoleProgress, RoleStage
from router.roles.router_restarts import RETURN_TIMEOUT_S, RouterStatus
from tests.router.builders import generation_request
from tests.router.roles.world import DRAIN_TIMEOUT_S, RoleWorld, Watching

SILENT: RouterStatus | None = None


class Other:
    """A router that says of itself what the test says, the last of it again and again."""

    def __init__(self, world: RoleWorld, name: str, *statuses: RouterStatus | None) -> None:
        self.name = name
        self.left_s: list[float | None] = []
        self._world = world
        self._statuses = list(statuses)

    async def status(self) -> RouterStatus:
        self._world.clock.advance(1.0)
        status = self._statuses.pop(0) if len(self._statuses) > 1 else self._statuses[0]
        if status is None:
            raise UnreachableError(f"{self.name} does not answer")
        return status

    async def leave(self, drain_timeout_s: float | None) -> None:
        assert not self._world.departure.is_ordered
        self.left_s.append(drain_timeout_s)


@pytest_asyncio.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> RoleWorld:
    monkeypatch.setattr(router_restarts, "LOOK_S", 0.0)
    return RoleWorld()


async def restart(world: RoleWorld, drain_timeout_s: float | None = None) -> list[RoleProgress]:
    return [each async for each in world.router_restarts.restart("me", drain_timeout_s)]


async def test_only_router_leaves_and_says_what_is_under_way(world: RoleWorld) -> None:
    world.dispatcher.submit(generation_request())
    (told,) = await restart(world, 5.0)
    assert told.message == "the router that was asked leaves; 1 request(s) under way end first"
    assert (told.stage, told.is_last) == (RoleStage.CHANGED, True)
    assert (world.departure.is_ordered, world.departure.timeout_s) == (True, 5.0)
    (action,) = world.director.actions()
    assert (action.actor, action.action, action.outcome) == ("me", "restart routers", "done")


async def test_others_go_first_each_when_the_one_before_is_back_as_ready_as_it_was(world: RoleWorld) -> None:
    old, new = RouterStatus("old", 3, is_ready=True), RouterStatus("new", 0, is_ready=True)
    unready = RouterStatus("new", 0, is_ready=False)
    first = Other(world, "router-0", old, old, SILENT, unready, new)
    second = Other(world, "router-1", RouterStatus("x", 0, is_ready=False), RouterStatus("y", 0, is_ready=False))
    world.other_routers = [first, second]
    told = await restart(world)
    assert (first.left_s, second.left_s) == ([None], [None])
    assert [each.message for each in told] == [
        "router-0 leaves; 3 request(s) under way end first",
        "router-0 is back",
        "router-1 leaves; 0 request(s) under way end first",
        "router-1 is back",
        "the router that was asked leaves; 0 request(s) under way end first",
    ]
    assert told[1].elapsed_s == 5.0
    assert world.departure.timeout_s == DRAIN_TIMEOUT_S


async def test_router_that_does_not_come_back_stops_the_restart(world: RoleWorld) -> None:
    world.other_routers = [Other(world, "router-0", RouterStatus("old", 0, is_ready=True))]
    told = await restart(world, 2.0)
    assert (told[-1].stage, told[-1].is_last) == (RoleStage.FAILED, True)
    assert told[-1].message.startswith(f"router-0 has not come back within {RETURN_TIMEOUT_S + 2:g} s")
    assert not world.departure.is_ordered
    assert world.director.actions()[0].outcome.startswith("failed: router-0")


async def test_restart_goes_on_when_nobody_watches(world: RoleWorld) -> None:
    statuses = (RouterStatus(name, 0, is_ready=True) for name in ("old", "new"))
    world.other_routers = [Other(world, "router-0", *statuses)]
    watching = Watching(world.router_restarts.restart("me", None))
    await watching.until(1)
    watching.task.cancel()
    await world.departure.wait_ordered()


async def test_second_restart_and_a_time_that_is_none_are_refused(world: RoleWorld) -> None:
    with pytest.raises(InvalidRequestError, match="the drain timeout is -1"):
        await restart(world, -1.0)
    assert not world.departure.is_ordered
    await restart(world)
    with pytest.raises(StaleEpochError, match="a restart of routers is under way"):
        await restart(world)
    assert [action.outcome.partition(":")[0] for action in world.director.actions()] == ["refused", "done", "refused"]
