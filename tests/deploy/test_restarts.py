from deploy.restarts import CrashCount, RestartPolicy

POLICY = RestartPolicy(stable_s=10.0, first_delay_s=1.0, max_delay_s=5.0, max_crashes=7)


def test_crashes_in_a_row_wait_longer_each_time_and_end() -> None:
    count = CrashCount(POLICY)
    assert [count.died(served_s) for served_s in (0.0, 9.9, 0.0, 0.0, 0.0, 0.0, 0.0)] == [0, 1, 2, 4, 5, 5, None]


def test_death_after_long_service_is_no_crash_and_forgets_those_before() -> None:
    count = CrashCount(POLICY)
    assert [count.died(served_s) for served_s in (0.0, 0.0, 0.0, 10.0, 0.0, 0.0)] == [0, 1, 2, 0, 0, 1]
