from core.clock import ManualClock
from router.fleet.awake_clock import MAX_STRIDE_S, AwakeClock


def test_time_passes_as_on_the_real_clock_for_whoever_reads_it_often() -> None:
    awake = AwakeClock(clock := ManualClock(100.0))
    for _ in range(20):
        clock.advance(1.0)
        awake.now_s()
    assert awake.now_s() == awake.now_s() == 20.0


def test_time_in_which_nobody_could_read_it_hardly_counts() -> None:
    awake = AwakeClock(clock := ManualClock(100.0))
    clock.advance(60.0)
    assert awake.now_s() == MAX_STRIDE_S
    clock.advance(1.0)
    assert awake.now_s() == MAX_STRIDE_S + 1.0
