import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.load.record import RequestRecord
from loadtest.report.timeline import MAX_POINTS, MAX_SPANS, course_of, points_drawn, timeline_figure
from tests.loadtest.report.documents import answered, failed, run_of


def drawn(records: list[RequestRecord], **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - any part
    figure: dict[str, Any] = json.loads(timeline_figure(run_of(records, **changes)).to_json())
    return figure


def trace(figure: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in figure["data"] if one["name"].startswith(name))


@given(st.lists(st.tuples(st.floats(0, 5000), st.booleans()), min_size=1, max_size=40))
def test_every_request_is_counted_once(requests: list[tuple[float, bool]]) -> None:
    records = [
        failed(number, at_s) if is_failed else answered(number, at_s, [at_s + 0.5, at_s + 1.5])
        for number, (at_s, is_failed) in enumerate(requests)
    ]
    course = course_of(run_of(records))
    assert course.num_spans <= MAX_SPANS
    num_failed = sum(is_failed for _, is_failed in requests)
    counted = [
        times.sum() * course.span_s for times in map(course.rate, (course.sent_s, course.ended_s, course.failed_s))
    ]
    assert counted == pytest.approx([len(requests), len(requests) - num_failed, num_failed])
    assert course.tokens().sum() * course.span_s == pytest.approx(2 * (len(requests) - num_failed), abs=0.5)


def test_median_is_of_the_requests_of_its_second() -> None:
    records = [answered(0, 0.0, [0.25]), answered(1, 0.5, [0.625]), answered(2, 0.75, [1.75]), failed(3, 2.0)]
    medians = course_of(run_of(records)).median_ttft_ms()
    assert medians[0] == 250.0
    assert np.isnan(medians[1:]).all()


def test_run_without_an_answer_can_be_drawn() -> None:
    figure = drawn([failed(0, 0.5)])
    assert trace(figure, "failed")["y"] == [1.0]
    assert trace(figure, "TTFT")["y"] == [None]
    assert trace(drawn([]), "sent")["y"] == [0.0]


def test_faults_that_there_was_time_for_stand_at_their_time_with_what_was_done() -> None:
    faults = [
        {"at_s": 1.5, "what": "kill decode-1", "error": None},
        {"at_s": 2.0, "what": "flip <b>", "error": "no such worker"},
        {"at_s": 600.0, "what": "kill router", "error": "the run ended before its time"},
    ]
    figure = drawn([answered(0, 0.0, [0.5])], faults=faults)
    assert [shape["x0"] for shape in figure["layout"]["shapes"]] == [1.5] * 3 + [2.0] * 3
    labels = [note["text"] for note in figure["layout"]["annotations"]]
    assert labels[-2:] == ["kill decode-1", "flip &lt;b&gt; (failed)"]


def test_of_many_requests_every_so_many_th_is_a_point_and_all_are_in_the_lines() -> None:
    num_requests = 2 * MAX_POINTS + 1
    records = [answered(number, number / 1000, [number / 1000 + 0.1]) for number in range(num_requests)]
    figure = drawn(records)
    assert points_drawn(num_requests) == 3
    assert len(trace(figure, "TTFT")["x"]) == math.ceil(num_requests / 3)
    assert sum(trace(figure, "sent")["y"]) == num_requests
    assert points_drawn(MAX_POINTS) == points_drawn(0) == 1
