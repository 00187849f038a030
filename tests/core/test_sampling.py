import math
from typing import Any

import pytest

from core.errors import InvalidRequestError
from core.sampling import MAX_SEED, SamplingParams


def test_limits_are_accepted() -> None:
    SamplingParams(temperature=0.0, top_p=1e-9, top_k=0, seed=0)
    SamplingParams(temperature=2.0, top_p=1.0, top_k=10**9, seed=MAX_SEED)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", math.nan),
        ("top_k", -1),
        ("seed", -1),
        ("seed", MAX_SEED + 1),
    ],
)
def test_value_outside_its_limits_is_named(field: str, value: float) -> None:
    fields: dict[str, Any] = {field: value}
    with pytest.raises(InvalidRequestError) as caught:
        SamplingParams(**fields)
    assert caught.value.param == field
    assert f"{field} is {value}" in caught.value.message


def test_only_temperature_zero_is_greedy() -> None:
    assert SamplingParams(temperature=0.0).is_greedy
    assert not SamplingParams(temperature=0.01, top_k=1).is_greedy
