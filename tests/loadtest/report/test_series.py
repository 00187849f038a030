import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.report.series import NUM_QUANTILES, series_of
from tests.loadtest.report.documents import answered, failed

GAPS = st.lists(st.floats(0, 2), min_size=1, max_size=10)


def test_columns_have_what_became_of_each_request() -> None:
    series = series_of([answered(0, 1.0, [1.5, 1.75, 2.0]), failed(1, 1.25), answered(2, 2.0, [2.5])])
    assert series["sent_s"] == [1.0, 1.25, 2.0]
    assert series["ttft_ms"] == [500.0, None, 500.0]
    assert series["tpot_ms"] == [250.0, None, None]
    assert series["e2e_ms"] == [1000.0, None, 500.0]
    assert series["error"] == [None, "http_429", None]
    assert json.loads(json.dumps(series)) == series


def test_answer_that_broke_off_has_a_first_token_and_no_end() -> None:
    record = answered(0, 1.0, [1.5, 2.0])
    record.error = "cut_off"
    series = series_of([record])
    assert (series["ttft_ms"], series["tpot_ms"], series["e2e_ms"]) == ([500.0], [None], [None])
    assert (series["itl_ms"], series["tokens_per_s"]) == ([], [0.0, 1.0, 1.0])


@given(st.lists(GAPS, max_size=5), st.integers(1, 9))
def test_tokens_of_all_seconds_are_the_tokens_of_all_answers(answers: list[list[float]], per_event: int) -> None:
    records = []
    for number, gaps in enumerate(answers):
        chunk_s = [sum(gaps[: i + 1]) for i in range(len(gaps))]
        records.append(answered(number, 0.0, chunk_s, output_tokens=per_event * len(gaps)))
    total = sum(record.output_tokens for record in records)
    assert sum(series_of(records)["tokens_per_s"]) == pytest.approx(total, abs=0.2)


def test_tokens_stand_in_the_seconds_in_which_they_came() -> None:
    series = series_of([answered(0, 0.0, [0.5, 2.25, 2.5], output_tokens=6)])
    assert series["tokens_per_s"] == [2.0, 0.0, 4.0]


def test_gaps_are_kept_as_quantiles_of_all_answers() -> None:
    series = series_of([answered(0, 0.0, [1.0, 1.25, 1.75]), answered(1, 0.0, [2.0])])
    assert len(series["itl_ms"]) == NUM_QUANTILES
    assert (series["itl_ms"][0], series["itl_ms"][500], series["itl_ms"][-1]) == (250.0, 375.0, 500.0)
    assert series_of([failed(0, 1.0)])["itl_ms"] == []
