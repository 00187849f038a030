import pytest

from core.clock import ManualClock, SystemClock


def test_system_clock_never_goes_back() -> None:
    clock = SystemClock()
    assert clock.now_s() <= clock.now_s()


def test_manual_clock_moves_only_when_told() -> None:
    clock = ManualClock(5.0)
    assert clock.now_s() == 5.0
    clock.advance(1.5)
    assert clock.now_s() == 6.5
    with pytest.raises(AssertionError, match="go back"):
        clock.advance(-1.0)
