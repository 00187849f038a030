import pytest

from core.request import Role
from router.roles.forecast import PRIOR_ANSWER_TOKENS, Forecaster, generating_share, num_prompts
from router.roles.settings import ControllerSettings
from tests.router.roles.scenes import busy, demand, fleet, snapshot


def test_nothing_seen_forecasts_nothing() -> None:
    forecast = Forecaster(ControllerSettings()).observe(demand())
    assert forecast.arrivals_per_s == forecast.prompt_tokens_per_s == 0.0
    assert forecast.answer_tokens == PRIOR_ANSWER_TOKENS


@pytest.mark.parametrize("seconds", [0.25, 1.0, 10.0])
def test_steady_demand_is_forecast_at_any_interval(seconds: float) -> None:
    forecaster = Forecaster(ControllerSettings())
    per_look = int(4 * seconds)
    for _ in range(int(120 / seconds)):
        forecast = forecaster.observe(demand(per_look, 500, per_look, 100, seconds))
    assert forecast.arrivals_per_s == pytest.approx(4, rel=0.01)
    assert forecast.prompt_tokens == 500
    assert forecast.prompt_tokens_per_s == pytest.approx(2000, rel=0.01)
    assert forecast.answer_tokens == pytest.approx(100, rel=0.02)
    assert forecast.context_tokens == pytest.approx(550, rel=0.01)
    assert forecast.answer_tokens_per_s == pytest.approx(400, rel=0.03)


def test_first_request_is_no_flood() -> None:
    forecast = Forecaster(ControllerSettings()).observe(demand(1, 500, seconds=0.01))
    assert forecast.arrivals_per_s <= 1


def test_requests_that_ended_without_a_token_are_no_answers_of_none() -> None:
    assert Forecaster(ControllerSettings()).observe(demand(1, 100, 3, 0)).answer_tokens == 1


def test_spread_of_prompts_is_kept() -> None:
    forecaster = Forecaster(ControllerSettings())
    for number in range(20):
        forecast = forecaster.observe(demand(2, 100 if number % 2 else 3000))
    assert forecast.prompt_tokens_squared == pytest.approx((100**2 + 3000**2) / 2)


def test_sequence_whose_prompt_waits_does_not_generate() -> None:
    workers = busy(fleet(1, 1), Role.PREFILL, queued_prompts=3, pending_prompt_tokens=4000)
    workers = busy(workers, Role.DECODE, running_sequences=8)
    seen = snapshot(workers)
    assert [num_prompts(worker) for worker in workers] == [4, 0]
    assert generating_share(seen) == 0.5


def test_share_of_an_idle_fleet_is_zero() -> None:
    assert generating_share(snapshot(fleet(1, 1))) == 0.0
