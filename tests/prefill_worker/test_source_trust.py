from core.clock import ManualClock
from core.ids import WorkerId
from prefill_worker.source_trust import COSTLY_S, FIRST_PAUSE_S, MAX_PAUSE_S, SourceTrust

SOURCE = WorkerId("decode-0", 3)
SLOW_S = 2.0


def pauses_s(trust: SourceTrust, clock: ManualClock, num_failures: int) -> list[float]:
    """How long each of some failures pauses the source, in whole seconds."""
    lengths = []
    for _ in range(num_failures):
        trust.failed(SOURCE, SLOW_S)
        began_s = clock.now_s()
        while trust.is_paused(SOURCE):
            clock.advance(1.0)
        lengths.append(clock.now_s() - began_s)
    return lengths


def test_pauses_double_up_to_a_bound_and_begin_anew_after_a_success() -> None:
    clock = ManualClock()
    trust = SourceTrust(clock)
    doubling = [min(FIRST_PAUSE_S * 2**n, MAX_PAUSE_S) for n in range(9)]
    assert pauses_s(trust, clock, 9) == doubling
    assert doubling[-1] == MAX_PAUSE_S
    trust.succeeded(SOURCE)
    assert pauses_s(trust, clock, 2) == doubling[:2]


def test_failures_of_one_moment_count_once() -> None:
    clock = ManualClock()
    trust = SourceTrust(clock)
    for _ in range(3):
        trust.failed(SOURCE, SLOW_S)
    clock.advance(FIRST_PAUSE_S)
    assert not trust.is_paused(SOURCE)


def test_failure_that_cost_nobody_anything_pauses_nobody() -> None:
    trust = SourceTrust(ManualClock())
    trust.failed(SOURCE, COSTLY_S / 2)
    assert not trust.is_paused(SOURCE)


def test_later_incarnation_has_no_past() -> None:
    trust = SourceTrust(ManualClock())
    trust.failed(SOURCE, SLOW_S)
    assert not trust.is_paused(WorkerId(SOURCE.name, 4))
    trust.worker_gone(WorkerId(SOURCE.name, 2))
    assert trust.is_paused(SOURCE)
    trust.worker_gone(SOURCE)
    assert not trust.is_paused(SOURCE)
