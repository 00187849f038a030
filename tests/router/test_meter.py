import pytest

from core.clock import ManualClock
from core.errors import CancelledRequestError, NoWorkerError
from core.request import FinishReason
from router import meter as meter_module
from router.meter import WINDOW_S, MeterReport, Percentiles, RequestMeter
from router.roles.snapshot import Demand
from tests.router.builders import LIMITS, generation_request, request_watch

TEN_TOKENS = generation_request(prompt=tuple(range(10)))
IDLE = MeterReport(0.0, 0.0, 0.0, None, None, 0, None, 0)


class Metered:
    """A meter and the clock it goes by."""

    def __init__(self) -> None:
        self.clock = ManualClock(100.0)
        self.meter = RequestMeter(self.clock, LIMITS)
        self.watch = request_watch(self.meter, clock=self.clock)

    def serve(self, *, ttft_s: float, tpot_s: float = 0.01, num_tokens: int = 3) -> None:
        """A request of 10 prompt tokens, of which 4 were cached, from beginning to end."""
        times = self.watch.arrived(TEN_TOKENS)
        times.placed(6)
        self.clock.advance(ttft_s)
        times.received(1)
        for count in range(2, num_tokens + 1):
            self.clock.advance(tpot_s)
            times.received(count)
        times.answered(FinishReason.LENGTH)


@pytest.fixture
def metered() -> Metered:
    return Metered()


def test_percentiles_are_of_the_nearest_rank() -> None:
    assert Percentiles.of([]) is None
    assert Percentiles.of([3.0]) == Percentiles(3.0, 3.0, 3.0)
    assert Percentiles.of([float(i) for i in range(100, 0, -1)]) == Percentiles(50.0, 90.0, 99.0)


def test_idle_meter_reports_nothing(metered: Metered) -> None:
    assert metered.meter.report() == IDLE


def test_report_has_times_and_rates_of_the_window(metered: Metered) -> None:
    metered.serve(ttft_s=0.5, tpot_s=0.05)
    metered.serve(ttft_s=2.0, tpot_s=0.05)
    metered.clock.advance(10.0 - 2.7)
    report = metered.meter.report()
    assert (report.requests_per_s, report.prompt_tokens_per_s) == pytest.approx((0.2, 2.0))
    assert report.answer_tokens_per_s == pytest.approx(0.6)
    assert report.ttft is not None
    assert (report.ttft.p50, report.ttft.p99) == pytest.approx((0.5, 2.0))
    assert report.tpot is not None
    assert report.tpot.p90 == pytest.approx(0.05)
    assert (report.num_judged, report.attainment, report.num_failed) == (2, 0.5, 0)


@pytest.mark.parametrize(
    ("ttft_s", "tpot_s", "attainment"), [(0.9, 0.05, 1.0), (1.5, 0.05, 0.0), (0.5, 0.2, 0.0), (1.5, 0.2, 0.0)]
)
def test_request_counts_when_it_kept_both_limits(
    metered: Metered, ttft_s: float, tpot_s: float, attainment: float
) -> None:
    metered.serve(ttft_s=ttft_s, tpot_s=tpot_s)
    assert metered.meter.report().attainment == attainment


def test_answer_of_one_token_has_no_time_per_token_and_keeps_that_limit(metered: Metered) -> None:
    metered.serve(ttft_s=0.5, num_tokens=1)
    report = metered.meter.report()
    assert (report.tpot, report.attainment) == (None, 1.0)


def test_failed_request_is_outside_the_limits_and_a_given_up_one_is_not_judged(metered: Metered) -> None:
    metered.serve(ttft_s=0.5)
    metered.watch.arrived(TEN_TOKENS).failed(NoWorkerError("nobody is there"))
    metered.watch.arrived(TEN_TOKENS).failed(CancelledRequestError("the client left"))
    report = metered.meter.report()
    assert (report.num_judged, report.attainment, report.num_failed) == (2, 0.5, 1)
    assert metered.meter.take_demand().num_finished == 3


def test_what_is_older_than_the_window_is_forgotten(metered: Metered) -> None:
    metered.serve(ttft_s=0.5)
    metered.clock.advance(WINDOW_S + 2)
    assert metered.meter.report() == IDLE


def test_memory_is_bounded_by_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter_module, "MAX_SAMPLES", 4)
    metered = Metered()
    for _ in range(5 * WINDOW_S):
        metered.serve(ttft_s=0.5)
        metered.clock.advance(0.5)
    assert len(metered.meter._seconds) <= WINDOW_S + 2
    assert len(metered.meter._ttft.since(0.0)) == len(metered.meter._tpot.since(0.0)) == 4


def test_demand_is_what_happened_since_it_was_taken(metered: Metered) -> None:
    metered.serve(ttft_s=0.5, tpot_s=0.05)
    metered.serve(ttft_s=2.0, tpot_s=0.2)
    demand = metered.meter.take_demand()
    assert demand.duration_s == pytest.approx(3.0)
    assert demand == Demand(
        duration_s=demand.duration_s,
        num_arrived=2,
        prompt_tokens=12,
        prompt_tokens_squared=72.0,
        num_finished=2,
        answer_tokens=6,
        num_first_tokens=2,
        num_ttft_met=1,
        num_tpot_met=1,
    )
    metered.clock.advance(4.0)
    assert metered.meter.take_demand() == Demand(duration_s=4.0)


def test_time_left_runs_out_at_the_limit_and_ends_with_the_first_token(metered: Metered) -> None:
    times = metered.watch.arrived(TEN_TOKENS)
    assert times.left_s() == LIMITS.ttft_s
    metered.clock.advance(LIMITS.ttft_s + 1)
    assert times.left_s() == pytest.approx(-1)
    times.received(1)
    assert times.left_s() == float("inf")
