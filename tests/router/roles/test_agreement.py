import pytest

from core.clock import ManualClock
from core.errors import UnavailableError
from router.roles.agreement import RouterAgreement
from router.roles.leadership import LEASE_S
from router.state.memory import MemoryState
from tests.router.roles.frail_state import FrailState, finish


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.mark.parametrize("is_auto", [True, False])
async def test_only_router_leads_from_the_first_refresh_and_its_word_holds(clock: ManualClock, is_auto: bool) -> None:
    agreement = RouterAgreement(MemoryState(clock), "a", clock, is_auto=is_auto)
    assert not agreement.is_leader
    await agreement.refresh()
    assert (agreement.is_leader, agreement.is_auto) == (True, is_auto)
    await agreement.set_auto(is_auto=not is_auto)
    await agreement.refresh()
    assert agreement.is_auto != is_auto


async def test_one_of_two_leads_and_both_know_whether_the_controller_decides(clock: ManualClock) -> None:
    store = MemoryState(clock)
    first, second = (RouterAgreement(store, name, clock, is_auto=True) for name in "ab")
    await first.refresh()
    await second.set_auto(is_auto=False)
    await first.refresh()
    await second.refresh()
    assert [first.is_leader, second.is_leader] == [True, False]
    assert [first.is_auto, second.is_auto] == [False, False]
    await first.resign()
    await second.refresh()
    assert [first.is_leader, second.is_leader] == [False, True]


def test_store_that_is_away_ends_the_lead_refuses_the_switch_and_keeps_what_it_was(clock: ManualClock) -> None:
    store = FrailState(clock, may_forget=False)
    agreement = RouterAgreement(store, "a", clock, is_auto=True)
    finish(agreement.refresh())
    assert agreement.trouble is None
    store.is_away = True
    finish(agreement.refresh())
    assert (agreement.is_leader, agreement.trouble) == (True, FrailState.PROBLEM)
    with pytest.raises(UnavailableError, match=FrailState.PROBLEM):
        finish(agreement.set_auto(is_auto=False))
    clock.advance(LEASE_S)
    assert (agreement.is_leader, agreement.is_auto) == (False, True)
