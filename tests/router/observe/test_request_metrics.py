import pytest
from prometheus_client import CollectorRegistry

from core.clock import ManualClock
from core.errors import InvalidRequestError, NoWorkerError
from core.request import FinishReason
from router.observe.call import Calls, accept, note_refusal
from router.observe.request_metrics import GAP_BUCKETS, REQUEST_BUCKETS, TTFT_BUCKETS, RequestMetrics
from router.observe.request_times import RequestTimes, RequestWatch
from tests.builders import assignment
from tests.router.builders import LIMITS, generation_request
from tests.router.observe.exposed import values_of
from tests.router.observe.test_request_times import DECODED, PREFILLED, timed


class Measured:
    """Requests in the test's own time, and what Prometheus gets of them."""

    def __init__(self) -> None:
        self.registry, self.clock = CollectorRegistry(), ManualClock()
        self.metrics = RequestMetrics(self.registry)
        self.watch = RequestWatch(self.clock, LIMITS, [self.metrics], on_arrived=[accept])
        self.calls = Calls(self.clock, [self.metrics.called])

    def arrive(self) -> RequestTimes:
        """Ten tokens, four of them not cached."""
        times = self.watch.arrived(generation_request(prompt=tuple(range(10))))
        times.placed(4)
        return times

    def answer(self) -> None:
        """First token after 1 s, the second and third 0.25 s later."""
        times, work = self.arrive(), assignment("r.0", 10)
        times.assigned(work)
        self.clock.advance(1.0)
        times.timed(timed(work, 0, PREFILLED))
        times.received(1, num_cached_tokens=6)
        self.clock.advance(0.25)
        times.timed(timed(work, 1, DECODED))
        times.received(3)
        times.answered(FinishReason.STOP)

    def value(self, name: str, **labels: str) -> float:
        (value,) = values_of(self.registry, f"baton_router_{name}", **labels).values()
        return value


@pytest.fixture
def measured() -> Measured:
    return Measured()


def test_answer_is_measured_from_its_arrival_to_its_end(measured: Measured) -> None:
    measured.answer()
    for name, seconds in (("ttft", 1.0), ("itl", 0.25), ("tpot", 0.125), ("request", 1.25)):
        assert (measured.value(f"{name}_seconds_sum"), measured.value(f"{name}_seconds_count")) == (seconds, 1)
    for name, number in (
        ("arrived_prompt_tokens", 10), ("arrived_uncached_tokens", 4), ("prompt_tokens", 10),
        ("cached_prompt_tokens", 6), ("answer_tokens", 3),
    ):  # fmt: skip
        assert measured.value(f"{name}_total") == number


def test_phases_of_an_answer_are_observed_one_by_one(measured: Measured) -> None:
    measured.answer()
    sums = values_of(measured.registry, "baton_router_phase_seconds_sum")
    assert sums == {
        ("queue",): 0.25, ("retry",): 0.0, ("prefill",): 0.5, ("wire",): 0.25, ("handoff",): 0.1875,
        ("first_step",): 0.0625, ("decode",): 0.0,
    }  # fmt: skip


def test_request_without_an_answer_is_in_no_time_but_what_it_brought(measured: Measured) -> None:
    measured.arrive().failed(NoWorkerError("nobody"))
    begun = measured.arrive()
    begun.received(1)
    begun.failed(NoWorkerError("nobody"))
    assert (measured.value("ttft_seconds_count"), measured.value("request_seconds_count")) == (1, 0)
    assert (measured.value("arrived_prompt_tokens_total"), measured.value("prompt_tokens_total")) == (20, 10)


def test_calls_are_counted_by_how_they_end(measured: Measured) -> None:
    for _ in range(2):
        with measured.calls.open("http", "POST /v1/chat/completions", {}):
            measured.answer()
    with measured.calls.open("grpc", "Generate", {}):
        note_refusal(InvalidRequestError("no"))
    assert values_of(measured.registry, "baton_router_requests_total") == {  # labels are in order of their names
        ("http", "stop", "answered"): 2,
        ("grpc", "invalid_value", "rejected"): 1,
    }


@pytest.mark.parametrize("buckets", [TTFT_BUCKETS, GAP_BUCKETS, REQUEST_BUCKETS])
def test_buckets_grow(buckets: tuple[float, ...]) -> None:
    assert list(buckets) == sorted(set(buckets))
