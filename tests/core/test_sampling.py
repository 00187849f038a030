import math
from typing import Any

import pytest

from core.errors import InvalidRequestError
from core.sampling import MAX_SEED, SamplingParams


def test_limits_are_accepted() -> None:
    lowest = {"min_p": 0.0, "repetition_penalty": 0.01, "presence_penalty": -2.0, "frequency_penalty": -2.0}
    SamplingParams(**lowest, logit_bias=((0, -100.0),), min_tokens=0, logprobs=0)
    highest = {"min_p": 1.0, "repetition_penalty": 100.0, "presence_penalty": 2.0, "frequency_penalty": 2.0}
    biases = tuple((token_id, 100.0) for token_id in range(1024))
    SamplingParams(**highest, logit_bias=biases, bad_words=((1, 2),), min_tokens=10**6, logprobs=20)
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
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("min_p", math.nan),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", 101.0),
        ("repetition_penalty", math.nan),
        ("presence_penalty", -2.1),
        ("presence_penalty", 2.1),
        ("frequency_penalty", -2.1),
        ("frequency_penalty", math.inf),
        ("min_tokens", -1),
        ("logprobs", -1),
        ("logprobs", 21),
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


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"logit_bias": ((7, 100.5),)}, "logit_bias of token 7 is 100.5"),
        ({"logit_bias": ((7, math.nan),)}, "logit_bias of token 7 is nan"),
        ({"logit_bias": tuple((i, 1.0) for i in range(1025))}, "logit_bias has 1025 tokens"),
        ({"bad_words": ((1,), ())}, "bad_words has an empty word"),
    ],
)
def test_wrong_bias_or_word_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message) as caught:
        SamplingParams(**fields)
    assert caught.value.param == next(iter(fields))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, False),
        ({"min_p": 0.5, "logit_bias": ((1, 1.0),)}, False),
        ({"repetition_penalty": 0.9}, True),
        ({"presence_penalty": -0.1}, True),
        ({"frequency_penalty": 0.1}, True),
    ],
)
def test_any_penalty_is_one(fields: dict[str, Any], expected: bool) -> None:
    assert SamplingParams(**fields).has_penalties is expected
