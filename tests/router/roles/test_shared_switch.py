import asyncio

import pytest

from core.clock import ManualClock
from core.errors import UnavailableError
from router.roles.shared_switch import SharedSwitch
from router.state.memory import MemoryState
from tests.router.roles.frail_state import FrailState, UnderWay, finish

KEY = "roles-auto"


@pytest.fixture
def store() -> FrailState:
    return FrailState(ManualClock(), may_forget=True)


def stored(store: FrailState) -> str | None:
    return UnderWay(_read(store)).execute()


async def _read(store: FrailState) -> None:
    await store.read(KEY)


@pytest.mark.parametrize("default", [True, False])
def test_flag_nobody_has_set_is_its_default_and_is_not_written(store: FrailState, default: bool) -> None:
    switch = SharedSwitch(store, KEY, default=default)
    finish(switch.refresh())
    assert switch.is_on == default
    assert stored(store) is None


def test_what_one_router_sets_the_others_read(store: FrailState) -> None:
    first, second = (SharedSwitch(store, KEY, default=True) for _ in range(2))
    for is_on in (False, True, False):
        finish(first.set(is_on=is_on))
        assert first.is_on == is_on
        finish(second.refresh())
        assert second.is_on == is_on


def test_order_that_fails_changes_nothing_here(store: FrailState) -> None:
    switch = SharedSwitch(store, KEY, default=True)
    store.is_away = True
    with pytest.raises(UnavailableError, match=FrailState.PROBLEM):
        finish(switch.set(is_on=False))
    assert switch.is_on


def test_order_that_was_given_up_and_done_all_the_same_is_read(store: FrailState) -> None:
    switch = SharedSwitch(store, KEY, default=True)
    order = UnderWay(switch.set(is_on=False))
    with pytest.raises(UnavailableError):
        order.fail()
    order.execute()
    assert switch.is_on
    finish(switch.refresh())
    assert not switch.is_on


def test_flag_stays_while_the_store_is_away(store: FrailState) -> None:
    switch = SharedSwitch(store, KEY, default=True)
    finish(switch.set(is_on=False))
    store.is_away = True
    finish(switch.refresh())
    assert not switch.is_on


def test_store_that_has_forgotten_is_told_again(store: FrailState) -> None:
    first, late = (SharedSwitch(store, KEY, default=True) for _ in range(2))
    finish(first.set(is_on=False))
    store.forget()
    finish(late.refresh())
    assert late.is_on
    assert stored(store) is None
    finish(first.refresh())
    finish(late.refresh())
    assert [first.is_on, late.is_on] == [False, False]


def test_word_that_is_neither_yes_nor_no_is_like_none(store: FrailState) -> None:
    switch = SharedSwitch(store, KEY, default=False)
    finish(store.write(KEY, "perhaps"))
    finish(switch.refresh())
    assert not switch.is_on
    finish(switch.set(is_on=True))
    finish(store.write(KEY, "perhaps"))
    finish(switch.refresh())
    assert switch.is_on
    assert stored(store) == "on"


class HeldState(MemoryState):
    """A store that has read a value, and does not say it yet."""

    def __init__(self) -> None:
        super().__init__(ManualClock())
        self.has_read = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def read(self, key: str) -> str | None:
        value = await super().read(key)
        self.has_read.set()
        await self.may_answer.wait()
        return value


async def test_reading_under_way_does_not_undo_an_order() -> None:
    held = HeldState()
    switch = SharedSwitch(held, KEY, default=False)
    await switch.set(is_on=True)
    reading = asyncio.create_task(switch.refresh())
    await held.has_read.wait()
    order = asyncio.create_task(switch.set(is_on=False))
    await asyncio.sleep(0)
    held.may_answer.set()
    await asyncio.gather(reading, order)
    assert not switch.is_on
    assert await held.read(KEY) == "off"
