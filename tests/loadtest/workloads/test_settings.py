from pathlib import Path
from typing import Any

import pytest

from core.errors import ConfigError
from loadtest.workloads.settings import WorkloadSettings

TRACE = Path("trace.jsonl")
DATASET = Path("dataset.json")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trace": TRACE, "dataset": DATASET}, "--trace and --dataset"),
        ({"trace": TRACE, "prompt_tokens": "5"}, "--prompt-tokens is 5"),
        ({"trace": TRACE, "answer_tokens": "5"}, "--answer-tokens is 5"),
        ({"dataset": DATASET, "turns": "2"}, "--turns is 2"),
        ({"dataset": DATASET, "time_scale": 2.0}, "--time-scale is 2.0"),
        ({"length_scale": 2.0}, "--length-scale is 2.0"),
        ({"trace_offset_s": 2.0}, "--trace-offset-s is 2.0"),
        ({"multi_turn": True}, "--multi-turn"),
        ({"prefixes": 2}, "--prefixes and --prefix-tokens"),
        ({"prefix_zipf": 2.0}, "--prefix-zipf is 2.0"),
        ({"prefixes": 0, "prefix_tokens": 5}, "--prefixes is 0"),
        ({"prefixes": 1, "prefix_tokens": 5, "prefix_zipf": -1.0}, "--prefix-zipf is -1.0"),
        ({"trace": TRACE, "time_scale": 0.0}, "--time-scale is 0.0"),
        ({"trace": TRACE, "length_scale": float("nan")}, "--length-scale is nan"),
        ({"prompt_tokens": "x"}, "--prompt-tokens is 'x'"),
        ({"turns": "2", "turn_tokens": "x"}, "--turn-tokens is 'x'"),
        ({"turns": "2", "think_s": "x"}, "--think-s is 'x'"),
        ({"turn_tokens": "5"}, "--turn-tokens is 5, but there are no later turns"),
        ({"think_s": "5"}, "--think-s is 5, but there are no later turns"),
        ({"trace": TRACE, "think_s": "5"}, "--think-s is 5, but there are no later turns"),
        ({"turns": "x"}, "--turns is 'x'"),
        ({"turns": "0"}, "--turns is '0', which is less than 1"),
        ({"prompt_tokens": "0:5"}, "--prompt-tokens is '0:5', which is less than 1"),
        ({"prompt_tokens": ""}, "--prompt-tokens is ''"),
        ({"answer_tokens": "x"}, "--answer-tokens is 'x'"),
        ({"arrivals": "x"}, "--arrivals is 'x'"),
    ],
)
def test_settings_that_mean_nothing_are_refused_with_their_flag(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WorkloadSettings(**values)


def test_answers_of_a_data_set_may_be_given_another_length() -> None:
    assert WorkloadSettings(dataset=DATASET, answer_tokens="7").answer().parameters == (7.0,)


def test_people_may_think_between_the_turns_of_a_data_set() -> None:
    assert WorkloadSettings(dataset=DATASET, multi_turn=True, think_s="2").thinking().parameters == (2.0,)


def test_later_turns_are_as_long_as_the_first_if_nothing_is_said() -> None:
    assert WorkloadSettings(prompt_tokens="5:9").later_turns() == WorkloadSettings(prompt_tokens="5:9").prompt()


def test_only_what_was_given_is_shown() -> None:
    assert WorkloadSettings().given() == {}
    assert WorkloadSettings(trace=TRACE, seed=3).given() == {"--trace": "trace.jsonl", "--seed": 3}
