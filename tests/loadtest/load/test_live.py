import pytest

from core.clock import ManualClock
from loadtest.load.live import LiveFigures, LiveView
from loadtest.load.record import RequestRecord
from tests.loadtest.load.chunks import answered, record


def test_figures_are_of_the_last_seconds_and_counts_of_all() -> None:
    records: list[RequestRecord] = [
        answered(0, 0.0, [1.0, 2.0], 2),
        record(1, 0.0, ended_s=3.0, error="cut_off"),
        answered(2, 10.0, [11.0, 12.0, 13.0], 3),
        record(3, 19.0, sent_s=19.5, chunk_s=[19.75]),
    ]
    figures = LiveView(records, ManualClock(20.0)).look()
    assert (figures.elapsed_s, figures.sent, figures.answered, figures.failed) == (20.0, 4, 2, 1)
    assert figures.ttft_ms is not None
    assert figures.tpot_ms is not None
    assert figures.lag_ms is not None
    assert (figures.ttft_ms.p50, figures.tpot_ms.p50) == (pytest.approx(625), pytest.approx(1000))
    assert figures.lag_ms.max == pytest.approx(500)
    assert figures.events_per_s == pytest.approx(0.4)


def test_counts_stay_as_records_get_old() -> None:
    clock = ManualClock(4.0)
    records = [answered(0, 0.0, [1.0], 1), record(1, 0.0, ended_s=3.0, error="cut_off"), record(2, 2.0)]
    view = LiveView(records, clock)
    before = view.look()
    clock.advance(96.0)
    records[2].chunk_s.append(100.0)
    after = view.look()
    assert (before.sent, before.answered, before.failed) == (after.sent, after.answered, after.failed) == (3, 1, 1)
    assert after.ttft_ms is not None
    assert after.ttft_ms.max == pytest.approx(98_000)


def test_counts_are_of_all_though_the_first_request_hangs() -> None:
    clock = ManualClock(5.0)
    records = [record(0, 0.0), answered(1, 1.0, [2.0], 1), record(2, 1.0, ended_s=3.0, error="cut_off")]
    view = LiveView(records, clock)
    for elapsed_s, num_answered in ((5.0, 1), (50.0, 1), (51.0, 2)):
        clock.advance(elapsed_s - clock.now_s())
        if num_answered == 2:
            records.append(answered(3, 50.0, [50.5], 1))
        figures = view.look()
        assert (figures.answered, figures.failed) == (num_answered, 1)


def test_nothing_yet_is_no_figure() -> None:
    assert LiveView([], ManualClock(0.0)).look() == LiveFigures(0.0, 0, 0, 0, None, None, 0.0, None)
