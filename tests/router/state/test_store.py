"""What every state store does, whatever is behind it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from core.clock import ManualClock
from router.state.open_state import open_state
from router.state.redis_state import RedisState
from router.state.store import StateStore

LONG_S = 600.0
SHORT_S = 0.02
WAIT_S = 20.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest, clock: ManualClock) -> AsyncIterator[StateStore]:
    setting = "memory" if request.param == "memory" else request.getfixturevalue("redis_server").url
    opened = open_state(setting, clock)
    yield opened
    await opened.close()


async def take_when_free(store: StateStore, clock: ManualClock, name: str, owner: str) -> str:
    """Lets time pass, each store in its own way, until a lease can be had."""
    async with asyncio.timeout(WAIT_S):
        while (term := await store.hold_lease(name, owner, LONG_S)) is None:
            clock.advance(SHORT_S)
    return term


async def test_lease_is_held_by_one_owner_in_one_term(store: StateStore) -> None:
    term = await store.hold_lease("l", "a", LONG_S)
    assert term is not None
    assert await store.hold_lease("l", "b", LONG_S) is None
    assert await store.hold_lease("l", "a", LONG_S) == term


async def test_leases_of_other_names_are_apart(store: StateStore) -> None:
    assert await store.hold_lease("l", "a", LONG_S) is not None
    assert await store.hold_lease("m", "b", LONG_S) is not None


async def test_lease_that_has_run_out_is_anybodys_in_a_new_term(store: StateStore, clock: ManualClock) -> None:
    first = await store.hold_lease("l", "a", SHORT_S)
    second = await take_when_free(store, clock, "l", "b")
    assert second != first
    assert await store.hold_lease("l", "a", LONG_S) is None


async def test_owner_who_comes_back_too_late_gets_a_new_term(store: StateStore, clock: ManualClock) -> None:
    first = await store.hold_lease("l", "a", SHORT_S)
    await store.release_lease("l", "a")
    assert await take_when_free(store, clock, "l", "a") != first


async def test_renewal_makes_a_lease_longer(store: StateStore, clock: ManualClock) -> None:
    await store.hold_lease("l", "a", SHORT_S)
    await take_when_free(store, clock, "l", "a")  # which the renewal is, unless it came too late
    clock.advance(LONG_S / 2)
    assert await store.hold_lease("l", "b", LONG_S) is None


async def test_renewal_may_make_a_lease_shorter(store: StateStore, clock: ManualClock) -> None:
    await store.hold_lease("l", "a", LONG_S)
    await store.hold_lease("l", "a", SHORT_S)
    await take_when_free(store, clock, "l", "b")
    assert clock.now_s() < LONG_S


async def test_released_lease_is_free_at_once(store: StateStore) -> None:
    await store.hold_lease("l", "a", LONG_S)
    await store.release_lease("l", "a")
    assert await store.hold_lease("l", "b", LONG_S) is not None


async def test_nobody_releases_what_is_not_theirs(store: StateStore) -> None:
    await store.release_lease("l", "b")
    await store.hold_lease("l", "a", LONG_S)
    await store.release_lease("l", "b")
    assert await store.hold_lease("l", "b", LONG_S) is None


async def test_one_of_many_who_ask_at_once_has_the_lease(store: StateStore) -> None:
    terms = await asyncio.gather(*(store.hold_lease("l", f"owner-{number}", LONG_S) for number in range(20)))
    assert sum(term is not None for term in terms) == 1


@pytest.mark.parametrize("value", ["on", "", "größer", "line\nline"])
async def test_value_is_read_as_it_was_written(store: StateStore, value: str) -> None:
    await store.write("k", "before")
    await store.write("k", value)
    assert await store.read("k") == value


async def test_unwritten_value_is_none_also_beside_a_lease_of_its_name(store: StateStore) -> None:
    await store.hold_lease("k", "a", LONG_S)
    assert await store.read("k") is None


async def test_closing_leaves_the_lease_to_run_out(store: StateStore) -> None:
    await store.hold_lease("l", "a", LONG_S)
    await store.close()
    assert await store.hold_lease("l", "b", LONG_S) is None


async def test_only_redis_may_forget(store: StateStore) -> None:
    assert store.may_forget == isinstance(store, RedisState)
