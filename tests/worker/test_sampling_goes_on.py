"""An answer is the same whichever workers generate which part of it, with everything that looks at its history."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.events import TokenEvent
from core.request import Assignment, FinishReason
from core.sampling import SamplingParams
from tests.worker.loops import EOS, LoopFleet, greedy
from tests.worker.test_loop import prompt_of

NUM_NEW = 24
RANDOM = {"temperature": 1.5, "seed": 5}
VARIANTS: dict[str, dict[str, Any]] = {
    "repetition": {"repetition_penalty": 3.0},
    "presence": {"presence_penalty": 2.0, **RANDOM},
    "frequency": {"frequency_penalty": 2.0},
    "attraction": {"frequency_penalty": -2.0, **RANDOM},
    "everything": {
        **RANDOM,
        "repetition_penalty": 1.4,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.5,
        "min_p": 0.02,
        "top_p": 0.98,
        "top_k": 100,
        "logit_bias": ((EOS, 6.0), (30, -100.0)),
        "min_tokens": 18,
    },
}


@pytest.fixture(scope="module")
def fleet(tiny_model_dir: Path) -> LoopFleet:
    return LoopFleet(tiny_model_dir)


def work(handoff_id: str, params: SamplingParams) -> Assignment:
    return replace(greedy(handoff_id, prompt_of(20), NUM_NEW), sampling=params)


def run(fleet: LoopFleet, *works: Assignment) -> list[list[TokenEvent]]:
    for assignment in works:
        fleet.assign(assignment)
    fleet.run()
    return [fleet.tokens(w.handoff_id, first_position=w.first_position) for w in works]


def ids(events: list[TokenEvent]) -> list[int]:
    return [event.token_id for event in events]


@pytest.mark.parametrize("variant", VARIANTS)
def test_answer_placed_again_at_any_position_goes_on_as_undisturbed(fleet: LoopFleet, variant: str) -> None:
    params = SamplingParams(**{"temperature": 0.0, **VARIANTS[variant]})
    whole = work(f"{variant}-whole", params)
    plain = work(f"{variant}-plain", SamplingParams(temperature=params.temperature, seed=params.seed))
    undisturbed, unpenalized = run(fleet, whole, plain)
    assert ids(undisturbed) != ids(unpenalized)
    assert len(undisturbed) > 5
    again = [
        replace(
            whole,
            handoff_id=f"{variant}-{position}",
            prompt=(*whole.prompt, *ids(undisturbed[:position])),
            first_position=position,
            max_new_tokens=NUM_NEW - position,
        )
        for position in range(1, len(undisturbed))
    ]
    for assignment, events in zip(again, run(fleet, *again), strict=True):
        assert ids(events) == ids(undisturbed[assignment.first_position :]), assignment.handoff_id
    assert fleet.is_free


def test_bad_words_never_come_across_a_handoff_either(fleet: LoopFleet) -> None:
    (free,) = run(fleet, work("free", SamplingParams(temperature=0.0)))
    first, second, third, *_ = ids(free)
    for name, words in {"first": ((first,),), "across": ((first, second),), "later": ((second, third),)}.items():
        params = SamplingParams(temperature=0.0, bad_words=words)
        (banned,) = run(fleet, work(f"banned-{name}", params))
        num_kept = {"first": 0, "across": 1, "later": 2}[name]
        assert ids(banned)[:num_kept] == ids(free)[:num_kept]
        answer = ids(banned)
        assert not any(tuple(answer[i : i + len(words[0])]) == words[0] for i in range(len(answer)))
    assert fleet.is_free


def test_min_tokens_holds_off_the_end_on_both_workers(fleet: LoopFleet) -> None:
    eager = {"temperature": 0.0, "logit_bias": ((EOS, 100.0),)}
    answers = run(
        fleet,
        *(work(f"min-{num}", SamplingParams(**eager, min_tokens=num)) for num in (0, 1, 4)),
    )
    assert [len(events) for events in answers] == [1, 2, 5]
    assert all(events[-1].token_id == EOS for events in answers)
    assert all(events[-1].finish_reason is FinishReason.STOP for events in answers)


def test_logprobs_come_with_every_token_from_both_workers(fleet: LoopFleet) -> None:
    asked, silent = run(
        fleet,
        work("asked", SamplingParams(temperature=0.0, logprobs=3)),
        work("silent", SamplingParams(temperature=0.0)),
    )
    assert len(asked) > 2
    assert ids(asked) == ids(silent)
    for event in asked:
        assert event.logprobs is not None
        assert event.logprobs.token_id == event.token_id == event.logprobs.top_ids[0]
        assert event.logprobs.logprob == event.logprobs.top_logprobs[0] < 0
        assert len(event.logprobs.top_ids) == 3
    assert all(event.logprobs is None for event in silent)
