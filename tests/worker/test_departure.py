"""The phases of a worker that leaves."""

import pytest

from core.clock import ManualClock
from worker.departure import RETURN_TIMEOUT_S, TRANSITIONS, Departure, DepartureEvent, DeparturePhase


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def departure(clock: ManualClock) -> Departure:
    return Departure(clock)


def test_worker_that_was_not_told_to_leave_serves_however_empty_it_is(departure: Departure) -> None:
    assert not departure.look(is_empty=True)
    assert departure.phase is DeparturePhase.SERVING


def test_worker_leaves_as_soon_as_it_is_empty(departure: Departure) -> None:
    departure.order(30.0)
    assert not departure.look(is_empty=False)
    assert departure.phase is DeparturePhase.DRAINING
    assert not departure.look(is_empty=True)
    assert departure.phase is DeparturePhase.STOPPED


def test_what_is_left_is_given_back_once_and_then_has_its_own_time(departure: Departure, clock: ManualClock) -> None:
    departure.order(30.0)
    clock.advance(30.0)
    assert departure.look(is_empty=False)
    assert departure.phase is DeparturePhase.RETURNING
    clock.advance(RETURN_TIMEOUT_S - 1.0)
    assert not departure.look(is_empty=False)
    assert departure.phase is DeparturePhase.RETURNING
    clock.advance(1.0)
    assert not departure.look(is_empty=False)
    assert departure.phase is DeparturePhase.STOPPED


def test_second_order_brings_the_end_nearer_and_never_farther(departure: Departure, clock: ManualClock) -> None:
    departure.order(30.0)
    departure.order(5.0)
    departure.order(60.0)
    clock.advance(5.0)
    assert departure.look(is_empty=False)
    departure.order(60.0)
    clock.advance(RETURN_TIMEOUT_S)
    departure.look(is_empty=False)
    assert departure.phase is DeparturePhase.STOPPED


def test_no_phase_is_left_for_an_earlier_one() -> None:
    phases = list(DeparturePhase)
    assert all(phases.index(after) > phases.index(before) for (before, _), after in TRANSITIONS.items())
    assert {event for _, event in TRANSITIONS} == set(DepartureEvent)
