from typing import Any

import pytest

from core.sampling import SamplingParams
from engine.sampling.rules import LogitRules

STOPS = frozenset({9})


def rules_of(prompt: list[int], num_answered: int, **params: Any) -> LogitRules | None:  # noqa: ANN401 - any field
    return LogitRules.of(SamplingParams(**params), STOPS, prompt, num_answered)


@pytest.mark.parametrize(
    "params",
    [{}, {"temperature": 0.0, "top_k": 5, "top_p": 0.5, "min_p": 0.1, "seed": 3, "logprobs": 5}, {"min_tokens": 2}],
    ids=str,
)
def test_sequence_that_needs_none_has_none(params: dict[str, Any]) -> None:
    assert rules_of([1, 2, 3], 2, **params) is None


def test_min_tokens_without_stop_tokens_needs_none() -> None:
    assert LogitRules.of(SamplingParams(min_tokens=5), (), [1], 0) is None


@pytest.mark.parametrize("repetition_penalty", [1.0, 1.2])
def test_prompt_counts_for_repetition_only(repetition_penalty: float) -> None:
    rules = rules_of([4, 5, 6, 6], 2, presence_penalty=1.0, repetition_penalty=repetition_penalty)
    assert rules is not None
    assert rules.counts is not None
    seen = dict(zip(rules.counts.token_ids.tolist(), rules.counts.counts.tolist(), strict=True))
    assert seen == ({6: 2} if repetition_penalty == 1.0 else {4: 0, 5: 0, 6: 2})


def test_rules_made_from_an_answer_are_those_that_were_told_it() -> None:
    params = {"frequency_penalty": 0.5, "repetition_penalty": 1.1, "bad_words": ((7, 8, 3), (8, 1)), "min_tokens": 4}
    told = rules_of([1, 2], 0, **params)
    assert told is not None
    answer = [7, 8, 7, 8]
    for length in range(1, len(answer) + 1):
        told.append(answer[length - 1])
        made = rules_of([1, 2, *answer[:length]], length, **params)
        assert made is not None
        assert made.counts is not None
        assert told.counts is not None
        for rules in (made, told):
            assert rules.masked_ids(length) == ({3, 1} if answer[length - 1] == 8 else set()) | (
                STOPS if length < 4 else set()
            )
        seen = [dict(zip(r.counts.token_ids.tolist(), r.counts.counts.tolist(), strict=True)) for r in (made, told)]
        assert seen[0] == seen[1]


def test_bad_word_does_not_reach_into_the_prompt() -> None:
    rules = rules_of([7], 0, bad_words=((7, 8),))
    assert rules is not None
    assert rules.masked_ids(0) == set()
    rules.append(7)
    assert rules.masked_ids(1) == {8}


def test_stop_tokens_are_masked_before_min_tokens() -> None:
    rules = rules_of([1], 0, min_tokens=2)
    assert rules is not None
    assert [rules.masked_ids(position) for position in range(3)] == [STOPS, STOPS, set()]
