import pytest

from core.clock import ManualClock
from router.admission.arrival_rates import SPAN_S, ArrivalRates

A, B = (0, "a"), (0, "b")


def steady(rates: ArrivalRates, clock: ManualClock, *, seconds: int) -> None:
    for _ in range(10 * seconds):
        clock.advance(0.1)
        rates.add(A, 10)


@pytest.mark.parametrize("seconds", [5, 100])
def test_steady_rate_is_found_soon_and_stays(seconds: int) -> None:
    clock = ManualClock()
    rates = ArrivalRates(clock.now_s)
    steady(rates, clock, seconds=seconds)
    assert rates.passing(B) == {A: pytest.approx(100.0, rel=0.05)}


def test_what_has_stopped_coming_fades_and_is_forgotten() -> None:
    clock = ManualClock()
    rates = ArrivalRates(clock.now_s)
    steady(rates, clock, seconds=60)
    clock.advance(SPAN_S)
    assert rates.passing(B) == {A: pytest.approx(100.0 / 2.718, rel=0.05)}
    clock.advance(20 * SPAN_S)
    assert rates.passing(B) == {}
    assert not rates._tallies


def test_first_prompt_is_no_flood() -> None:
    clock = ManualClock()
    rates = ArrivalRates(clock.now_s)
    rates.add(A, 100)
    assert rates.passing(B) == {A: pytest.approx(100.0)}


def test_only_those_that_may_pass_are_told() -> None:
    rates = ArrivalRates(ManualClock().now_s)
    for turn in ((-1, "a"), (0, "a"), (0, "b"), (1, "a")):
        rates.add(turn, 100)
    assert set(rates.passing((0, "a"))) == {(-1, "a"), (0, "b")}
