from core.clock import ManualClock
from core.ids import WorkerId
from core.processes import ProcessId, RankProcess
from router.fleet.pulse import Pulse, SilentWorker

OLD, NEW, OTHER = WorkerId("p", 1), WorkerId("p", 2), WorkerId("d", 1)
PROCESSES = (RankProcess("node-1", ProcessId(7, 1.0)),)


def silent(pulse: Pulse, for_s: float) -> list[tuple[WorkerId, float]]:
    return [(each.worker, each.silent_s) for each in pulse.silent(for_s)]


def test_silence_counts_from_the_last_report_whatever_else_the_worker_says() -> None:
    pulse = Pulse(clock := ManualClock())
    pulse.introduce(OLD, PROCESSES)
    clock.advance(4.0)
    pulse.heard(OLD)
    clock.advance(6.0)
    pulse.expect(OLD)
    pulse.introduce(OLD, PROCESSES)
    assert pulse.silent(6.0) == [SilentWorker(OLD, 6.0, PROCESSES)]
    assert pulse.silent(6.5) == []


def test_new_incarnation_starts_anew_and_the_old_ones_reports_are_not_its() -> None:
    pulse = Pulse(clock := ManualClock())
    pulse.introduce(OLD, PROCESSES)
    clock.advance(5.0)
    pulse.introduce(NEW, PROCESSES)
    clock.advance(5.0)
    pulse.heard(OLD)
    assert silent(pulse, 1.0) == [(NEW, 5.0)]
    assert pulse.latest("p") == NEW


def test_worker_that_came_and_said_nothing_is_silent_without_processes() -> None:
    pulse = Pulse(clock := ManualClock())
    pulse.expect(OLD)
    clock.advance(9.0)
    assert pulse.silent(9.0) == [SilentWorker(OLD, 9.0)]


def test_silence_of_a_refused_worker_is_marked_until_it_is_let_in() -> None:
    pulse = Pulse(clock := ManualClock())
    pulse.introduce(OTHER, PROCESSES)
    clock.advance(9.0)
    pulse.ignore(OTHER)
    assert pulse.silent(1.0) == [SilentWorker(OTHER, 9.0, PROCESSES, is_refused=True)]
    pulse.introduce(OTHER, PROCESSES)
    assert pulse.silent(1.0) == [SilentWorker(OTHER, 9.0, PROCESSES)]


def test_forgotten_worker_is_silent_no_more_but_only_that_incarnation() -> None:
    pulse = Pulse(clock := ManualClock())
    pulse.introduce(NEW, PROCESSES)
    clock.advance(9.0)
    pulse.forget(OLD)
    assert silent(pulse, 1.0) == [(NEW, 9.0)]
    pulse.forget(NEW)
    assert silent(pulse, 1.0) == []
    assert pulse.latest("p") is None
