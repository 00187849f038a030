import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.load.distribution import distribution_ms
from loadtest.load.summary import ErrorKind, Limits, is_inside, measured, summarize
from tests.loadtest.load.chunks import answered, record

# Sent at 0 and 1 s; first tokens after 100 and 300 ms; five tokens 50 ms apart, and one token alone.
FIVE = answered(0, 0.0, [0.10, 0.15, 0.20, 0.25, 0.30], 5, prompt_tokens=10, planned_prompt_tokens=9, cached_tokens=4)
ONE = answered(1, 1.0, [1.30], 1, prompt_tokens=20, planned_prompt_tokens=18)
FAILED = record(2, 1.5, sent_s=1.6, chunk_s=[1.7], ended_s=2.0, error="cut_off")
NO_LIMITS = Limits()


def test_figures_are_those_of_the_definitions() -> None:
    summary = summarize([FIVE, ONE, FAILED], NO_LIMITS, {"cut_off": "closed"})
    assert (summary.requests, summary.answered, summary.failed, summary.span_s) == (3, 2, 1, 2.0)
    assert summary.ttft_ms is not None
    assert summary.tpot_ms is not None
    assert summary.itl_ms is not None
    assert summary.e2e_ms is not None
    assert summary.lag_ms is not None
    assert (summary.ttft_ms.mean, summary.ttft_ms.max) == (pytest.approx(200), pytest.approx(300))
    assert summary.tpot_ms.p50 == summary.tpot_ms.max == pytest.approx(50)
    assert summary.itl_ms.p99 == pytest.approx(50)
    assert summary.e2e_ms.p50 == pytest.approx(300)
    assert summary.lag_ms.max == pytest.approx(100)
    assert (summary.requests_per_s, summary.input_tokens_per_s, summary.output_tokens_per_s) == (1.0, 15.0, 3.0)
    assert (summary.prompt_tokens, summary.planned_prompt_tokens) == (30, 27)
    assert (summary.cached_tokens, summary.output_tokens) == (4, 6)
    assert summary.errors == {"cut_off": ErrorKind(1, "closed")}


@pytest.mark.parametrize(
    ("limits", "num_good"),
    [
        (NO_LIMITS, 2),
        (Limits(ttft_ms=200), 1),
        (Limits(tpot_ms=40), 1),
        (Limits(ttft_ms=200, tpot_ms=40), 0),
        (Limits(ttft_ms=301, tpot_ms=51), 2),
    ],
)
def test_goodput_counts_answers_inside_both_limits(limits: Limits, num_good: int) -> None:
    goodput = summarize([FIVE, ONE, FAILED], limits, {}).goodput
    assert (goodput.requests_per_s, goodput.share) == (num_good / 2.0, num_good / 3)


def test_answer_of_one_token_meets_any_tpot() -> None:
    assert is_inside(ONE, Limits(tpot_ms=0.001))


def test_no_records_give_no_times_and_no_rates() -> None:
    summary = summarize([], NO_LIMITS, {})
    assert (summary.ttft_ms, summary.lag_ms, summary.goodput.share, summary.requests_per_s) == (None, None, 0.0, 0.0)


def test_prompt_that_nobody_counted_leaves_no_planned_sum() -> None:
    unplanned = answered(1, 0.0, [0.5], 1, prompt_tokens=5)
    assert summarize([FIVE, unplanned], NO_LIMITS, {}).planned_prompt_tokens is None


def test_planned_tokens_are_of_the_prompts_that_the_server_counted() -> None:
    uncounted = answered(1, 0.0, [0.5], 1, planned_prompt_tokens=50)
    assert summarize([FIVE, uncounted], NO_LIMITS, {}).planned_prompt_tokens == 9


def test_warm_up_is_what_comes_first_or_is_due_in_it() -> None:
    records = [record(number, float(number)) for number in range(6)]
    assert measured(records, 2, 0.0) == records[2:]
    assert measured(records, 0, 3.0) == records[3:]
    assert measured(records, 4, 2.0) == records[4:]


@given(st.lists(st.floats(0, 1e4), min_size=1))
def test_percentiles_are_numpys_in_milliseconds(seconds: list[float]) -> None:
    times = distribution_ms(seconds)
    assert times is not None
    expected = 1e3 * np.percentile(seconds, (50, 90, 99, 100))
    assert (times.p50, times.p90, times.p99, times.max) == pytest.approx(tuple(expected))
    assert times.mean == pytest.approx(1e3 * np.mean(seconds))
