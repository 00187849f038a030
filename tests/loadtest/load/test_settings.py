from typing import Any

import pytest

from core.errors import ConfigError
from loadtest.load.settings import LoadSettings
from loadtest.load.summary import Limits


def test_sweeps_are_read_in_their_order() -> None:
    assert LoadSettings(rate="4,0.5").rates() == (4.0, 0.5)
    assert LoadSettings(concurrency="1,16").concurrencies() == (1, 16)
    assert LoadSettings().rates() == LoadSettings().concurrencies() == ()


def test_only_what_is_asked_for_is_in_the_body() -> None:
    assert LoadSettings().body_fields() == {}
    asked = LoadSettings(temperature=0.0, sampling_seed=7, ignore_eos=True, extra_body='{"top_k": 1}')
    assert asked.body_fields() == {"temperature": 0.0, "seed": 7, "ignore_eos": True, "top_k": 1}


def test_limits_and_what_was_given() -> None:
    settings = LoadSettings(slo_ttft_ms=100, rate="2")
    assert settings.limits() == Limits(100, None)
    assert settings.given() == {"--rate": "2", "--slo-ttft-ms": 100}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": "1", "concurrency": "1"}, "--rate and --concurrency are two ways"),
        ({"rate": "1,x"}, "--rate is '1,x'; it must be positive numbers separated by commas"),
        ({"rate": "0"}, "--rate is '0'"),
        ({"concurrency": "1.5"}, "--concurrency is '1.5'; it must be whole numbers"),
        ({"concurrency": "4,65", "max_open": 64}, "--concurrency is 65, more than --max-open 64"),
        ({"temperature": 0.0, "extra_body": '{"temperature": 1}'}, "--extra-body sets temperature, for which a flag"),
        ({"duration_s": 0.0}, "--duration-s is 0.0; it must be a positive number"),
        ({"duration_s": float("nan")}, "--duration-s is nan"),
        ({"requests": -1}, "--requests is -1; it must be a positive number"),
        ({"warmup_s": -1.0}, "--warmup-s is -1.0; it must be 0 or more"),
        ({"max_open": 0}, "--max-open is 0"),
        ({"max_lag_ms": float("inf")}, "--max-lag-ms is inf"),
        ({"temperature": 3.0}, "--temperature is 3.0; it must be between 0 and 2"),
        ({"max_tokens_field": "n_predict"}, "--max-tokens-field is 'n_predict'; it must be one of max_tokens, "),
        ({"extra_body": "{"}, "--extra-body '{' is no JSON"),
        ({"extra_body": "[]"}, "--extra-body '[]' is no JSON object"),
        ({"extra_body": '{"stream": false}'}, "--extra-body sets stream, which the load itself does"),
    ],
)
def test_wrong_value_is_refused_by_its_flag(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LoadSettings(**values)
    assert caught.value.message.startswith(message)
