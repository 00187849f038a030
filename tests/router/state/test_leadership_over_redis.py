"""Leadership over a real Redis server. Time on the routers' clock passes by hand, the server's leases last longer."""

from collections.abc import AsyncIterator

import pytest

from core.clock import ManualClock
from router.roles.leadership import LEASE_S, Leadership
from router.state.open_state import open_state
from router.state.store import StateStore
from tests.router.state.redis_server import RedisServer


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def stores(redis_server: RedisServer, clock: ManualClock) -> AsyncIterator[list[StateStore]]:
    opened = [open_state(redis_server.url, clock) for _ in range(2)]
    yield opened
    for store in opened:
        await store.close()


async def lead(router: Leadership, clock: ManualClock) -> None:
    await router.refresh()
    clock.advance(LEASE_S)
    await router.refresh()
    assert router.is_leader


@pytest.mark.parametrize("is_restarted", [False, True], ids=["flushed", "restarted"])
async def test_server_that_forgets_its_leader_never_makes_two(
    redis_server: RedisServer, clock: ManualClock, stores: list[StateStore], is_restarted: bool
) -> None:
    first, second = (Leadership(store, name, clock) for name, store in zip("ab", stores, strict=True))
    await lead(first, clock)
    if is_restarted:
        redis_server.restart()
    else:
        redis_server.forget()
    await second.refresh()
    assert [first.is_leader, second.is_leader] == [True, False]
    await first.refresh()
    assert not first.is_leader
    await lead(second, clock)
    assert not first.is_leader


async def test_leader_leads_on_when_the_server_comes_back_within_its_lease(
    redis_server: RedisServer, clock: ManualClock, stores: list[StateStore]
) -> None:
    router = Leadership(stores[0], "a", clock)
    await lead(router, clock)
    redis_server.stop()
    try:
        clock.advance(LEASE_S / 5)
        await router.refresh()
        assert router.is_leader
        assert redis_server.url in (router.trouble or "")
        clock.advance(LEASE_S)
        assert not router.is_leader
    finally:
        redis_server.start()
    await lead(router, clock)
    assert router.trouble is None


async def test_who_resigns_is_followed(
    redis_server: RedisServer, clock: ManualClock, stores: list[StateStore]
) -> None:
    first, second = (Leadership(store, name, clock) for name, store in zip("ab", stores, strict=True))
    await lead(first, clock)
    await second.refresh()
    assert not second.is_leader
    await first.resign()
    await lead(second, clock)
    assert b"b\r\n" in redis_server.ask("HGET baton:lease:roles owner")
