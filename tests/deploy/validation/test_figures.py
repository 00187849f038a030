import pytest

from core.errors import InternalError
from deploy.validation.figures import Figures, RequestTimes, error_checks, figures

TIMES = [RequestTimes(0.1, 0.01), RequestTimes(0.2, 0.02), RequestTimes(0.3, 0.05)]


def test_figures_are_medians_and_requests_inside_both_limits_per_second() -> None:
    found = figures(TIMES, ttft_limit_s=0.25, tpot_limit_s=0.03, span_s=4.0)
    assert found == Figures(pytest.approx(200.0), pytest.approx(20.0), 0.5)


def test_answers_of_one_token_meet_the_limit_on_the_time_per_token() -> None:
    found = figures([*TIMES, RequestTimes(0.1, None)], ttft_limit_s=0.25, tpot_limit_s=0.015, span_s=1.0)
    assert found.goodput == 2


def test_nothing_to_compare_is_said() -> None:
    with pytest.raises(InternalError, match="of 1 answers none has two tokens"):
        figures([RequestTimes(0.1, None)], 1.0, 1.0, 1.0)


def test_distance_is_a_share_of_what_was_measured_in_either_direction() -> None:
    checks = error_checks("load", Figures(115.0, 8.0, 1.0), Figures(100.0, 10.0, 0.0))
    assert {check["name"]: check["value"] for check in checks} == {
        "load_ttft_ms_p50_error": pytest.approx(0.15),
        "load_tpot_ms_p50_error": pytest.approx(0.2),
        "load_goodput_error": 1.0,
    }
    assert [check["holds"] for check in checks[1:]] == [False, False]
