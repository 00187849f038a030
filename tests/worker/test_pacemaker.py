import threading

from core.clock import ManualClock
from worker.pacemaker import MAX_WORK_S, Pacemaker

WAIT_S = 20.0


def test_beats_while_work_takes_long_and_only_then() -> None:
    clock, beats = ManualClock(), []
    pacemaker = Pacemaker(lambda: beats.append(clock.now_s()), 1.0, clock)
    pacemaker.tick()
    with pacemaker.working():
        pacemaker.tick()
        assert beats == []
        clock.advance(1.0)
        pacemaker.tick()
        clock.advance(1.0)
        pacemaker.tick()
    clock.advance(1.0)
    pacemaker.tick()
    assert beats == [1.0, 2.0]


def test_work_that_never_ends_falls_silent() -> None:
    clock, beats = ManualClock(), []
    pacemaker = Pacemaker(lambda: beats.append(clock.now_s()), 1.0, clock)
    with pacemaker.working():
        clock.advance(MAX_WORK_S)
        pacemaker.tick()
    assert beats == []


def test_thread_beats_by_itself_and_ends() -> None:
    clock, beaten, before = ManualClock(), threading.Event(), threading.active_count()
    pacemaker = Pacemaker(beaten.set, 0.001, clock)
    with pacemaker.running(), pacemaker.working():
        clock.advance(1.0)
        assert beaten.wait(WAIT_S)
    assert threading.active_count() == before
