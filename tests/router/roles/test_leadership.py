import logging

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from core.clock import ManualClock
from router.roles.leadership import LEASE_S, MARGIN_S, Leadership
from router.state.memory import MemoryState
from tests.router.roles.frail_state import FrailState, SkewedClock, StoreCall, UnderWay, finish

REFRESH_S = 1.0
RATES = {"a": 0.96, "b": 1.0, "c": 1.04}  # of the routers' clocks
NAMES = st.sampled_from(sorted(RATES))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=[False, True], ids=["keeps", "may forget"])
def store(request: pytest.FixtureRequest, clock: ManualClock) -> FrailState:
    return FrailState(clock, may_forget=request.param)


def refresh_for(seconds: float, clock: ManualClock, *routers: Leadership) -> None:
    for _ in range(round(seconds / REFRESH_S)):
        clock.advance(REFRESH_S)
        for router in routers:
            finish(router.refresh())


def test_router_alone_leads_at_once_in_its_own_memory(clock: ManualClock) -> None:
    router = Leadership(MemoryState(clock), "a", clock)
    assert not router.is_leader
    finish(router.refresh())
    assert router.is_leader


def test_router_leads_over_a_store_that_may_forget_when_no_earlier_lease_can_last(clock: ManualClock) -> None:
    router = Leadership(FrailState(clock, may_forget=True), "a", clock)
    finish(router.refresh())
    refresh_for(LEASE_S - REFRESH_S, clock, router)
    assert not router.is_leader
    refresh_for(REFRESH_S, clock, router)
    assert router.is_leader


def test_one_of_two_leads_for_as_long_as_it_asks(store: FrailState, clock: ManualClock) -> None:
    first, second = (Leadership(store, name, clock) for name in "ab")
    refresh_for(10 * LEASE_S, clock, first, second)
    assert [first.is_leader, second.is_leader] == [True, False]


def test_leader_that_dies_is_followed_when_its_lease_has_run_out(store: FrailState, clock: ManualClock) -> None:
    first, second = (Leadership(store, name, clock) for name in "ab")
    refresh_for(2 * LEASE_S, clock, first, second)
    refresh_for(LEASE_S - REFRESH_S, clock, second)
    assert not second.is_leader
    refresh_for(2 * LEASE_S, clock, second)
    assert [first.is_leader, second.is_leader] == [False, True]


def test_leader_that_resigns_leads_no_more_and_is_followed(store: FrailState, clock: ManualClock) -> None:
    first, second = (Leadership(store, name, clock) for name in "ab")
    refresh_for(2 * LEASE_S, clock, first, second)
    finish(first.resign())
    assert not first.is_leader
    finish(second.refresh())
    assert second.is_leader != store.may_forget
    refresh_for(LEASE_S, clock, second)
    assert second.is_leader


def test_who_resigns_without_leading_takes_the_lease_from_nobody(store: FrailState, clock: ManualClock) -> None:
    first, second = (Leadership(store, name, clock) for name in "ab")
    refresh_for(2 * LEASE_S, clock, first, second)
    finish(second.resign())
    refresh_for(2 * LEASE_S, clock, first, second)
    assert first.is_leader


def test_lease_ends_early_on_the_clock_of_who_has_it(store: FrailState, clock: ManualClock) -> None:
    router = Leadership(store, "a", clock)
    refresh_for(2 * LEASE_S, clock, router)
    clock.advance(LEASE_S - MARGIN_S - 0.01)
    assert router.is_leader
    clock.advance(0.01)
    assert not router.is_leader


def test_lease_counts_from_before_it_was_asked_for(store: FrailState, clock: ManualClock) -> None:
    router = Leadership(store, "a", clock)
    refresh_for(2 * LEASE_S, clock, router)
    under_way = UnderWay(router.refresh())
    under_way.execute()
    clock.advance(LEASE_S)  # this process stands still, or the answer takes long
    under_way.answer()
    assert not router.is_leader


def test_leader_survives_a_short_outage_and_not_one_longer_than_its_lease(
    store: FrailState, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    router = Leadership(store, "a", clock)
    refresh_for(2 * LEASE_S, clock, router)
    assert router.trouble is None
    store.is_away = True
    refresh_for(2 * REFRESH_S, clock, router)
    assert router.is_leader
    refresh_for(LEASE_S, clock, router)
    assert not router.is_leader
    assert router.trouble == FrailState.PROBLEM
    store.is_away = False
    refresh_for(2 * LEASE_S, clock, router)
    assert router.is_leader
    assert router.trouble is None
    assert [record.getMessage() for record in caplog.records] == [
        "this router decides about roles",
        f"who decides about roles cannot be agreed on: {FrailState.PROBLEM}",
        "this router no longer decides about roles",
        "this router decides about roles",
    ]


def test_resigning_while_the_store_is_away_raises_nothing(
    store: FrailState, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    router = Leadership(store, "a", clock)
    refresh_for(2 * LEASE_S, clock, router)
    store.is_away = True
    finish(router.resign())
    assert not router.is_leader
    assert f"left to run out: {FrailState.PROBLEM}" in caplog.text


def test_leader_whose_lease_was_forgotten_waits_like_a_new_one(clock: ManualClock) -> None:
    store = FrailState(clock, may_forget=True)
    router = Leadership(store, "a", clock)
    refresh_for(2 * LEASE_S, clock, router)
    store.forget()
    refresh_for(LEASE_S, clock, router)
    assert not router.is_leader
    refresh_for(REFRESH_S, clock, router)
    assert router.is_leader


class Routers(RuleBasedStateMachine):
    """Routers that ask at any time over a store that fails in any way: never do two lead.

    A call is sent, done by the store and answered at three moments, between which anything may happen: the store or a
    router stands still for any time, answers get lost, calls are done after their sender has given them up.
    """

    may_forget = False

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.store = FrailState(self.clock, may_forget=self.may_forget)
        self.routers = {
            name: Leadership(self.store, name, SkewedClock(self.clock, rate)) for name, rate in RATES.items()
        }
        self.under_way: dict[str, UnderWay] = {}
        self.given_up: list[StoreCall] = []

    @invariant()
    def at_most_one_leads(self) -> None:
        assert sum(router.is_leader for router in self.routers.values()) <= 1

    @rule(seconds=st.floats(0.01, 2 * LEASE_S))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(name=NAMES)
    def a_router_asks(self, name: str) -> None:
        if name not in self.under_way:
            self.under_way[name] = UnderWay(self.routers[name].refresh())

    @rule(name=NAMES)
    def the_store_does_what_it_is_asked(self, name: str) -> None:
        if name in self.under_way:
            self.under_way[name].execute()

    @rule(name=NAMES)
    def a_router_hears(self, name: str) -> None:
        if name in self.under_way:
            self.under_way.pop(name).answer()

    @rule(name=NAMES)
    def a_router_gives_up(self, name: str) -> None:
        if name in self.under_way:
            self.given_up.append(self.under_way.pop(name).fail())

    @precondition(lambda self: self.given_up)
    @rule()
    def the_store_does_what_was_given_up(self) -> None:
        self.given_up.pop().execute()

    @rule(names=st.sets(NAMES, min_size=1), step_s=st.floats(0.2, 1.5))
    def routers_ask_and_hear_for_a_while(self, names: set[str], step_s: float) -> None:
        for _ in range(round(2 * LEASE_S / step_s)):
            self.clock.advance(step_s)
            self.at_most_one_leads()
            for name in sorted(names - self.under_way.keys()):
                finish(self.routers[name].refresh())
                self.at_most_one_leads()

    @rule(name=NAMES)
    def a_router_resigns(self, name: str) -> None:
        if name not in self.under_way:
            finish(self.routers[name].resign())

    def teardown(self) -> None:
        for call in self.under_way.values():
            call.fail()


class ForgetfulRouters(Routers):
    """The same over a store that may forget everything, any number of times."""

    may_forget = True

    @rule()
    def the_store_forgets(self) -> None:
        self.store.forget()


TestRouters = Routers.TestCase
TestForgetfulRouters = ForgetfulRouters.TestCase
TestRouters.settings = TestForgetfulRouters.settings = settings(max_examples=60, stateful_step_count=40)
