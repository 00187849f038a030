import re
from copy import copy
from dataclasses import replace
from typing import Any

import pytest

from core.errors import ContextLengthError, InvalidRequestError, UnknownModelError
from core.request import GenerationRequest
from core.sampling import MAX_SEED, SamplingParams
from router.intake import Intake, SamplingOptions
from router.text.tokenizer import TextCodec
from tests.router.http.serving import EOS, MODEL, NUM_TOKENS

MAX_MODEL_LEN = 10


@pytest.fixture
def intake(codec: TextCodec) -> Intake:
    return Intake(codec, MODEL, MAX_MODEL_LEN)


def make(intake: Intake, prompt: tuple[int, ...] = (1, 2, 3), **fields: object) -> GenerationRequest:
    return intake.request("id", prompt, **{"prompt_param": "messages", "sampling": SamplingOptions(), **fields})


def test_served_model_passes_and_another_is_named(intake: Intake) -> None:
    intake.check_model(MODEL)
    with pytest.raises(UnknownModelError, match=rf"model 'gpt-5' is not served here; use '{MODEL}'") as caught:
        intake.check_model("gpt-5")
    assert caught.value.param == "model"


def test_request_takes_the_models_defaults(intake: Intake, codec: TextCodec) -> None:
    request = make(intake)
    assert (request.request_id, request.prompt, request.max_tokens) == ("id", (1, 2, 3), 7)
    assert request.stop_token_ids == codec.eos_token_ids == frozenset({EOS})
    default = codec.default_sampling
    assert request.sampling == replace(default, seed=request.sampling.seed)


def test_seed_is_drawn_when_none_is_given(intake: Intake) -> None:
    seeds = {make(intake).sampling.seed for _ in range(8)}
    assert len(seeds) == 8
    assert all(0 <= seed <= MAX_SEED for seed in seeds)


def test_what_the_client_said_goes_before_the_defaults_zero_too(intake: Intake) -> None:
    said = SamplingOptions(temperature=0.0, top_p=0.5, top_k=0, seed=0)
    assert make(intake, sampling=said).sampling == SamplingParams(0.0, 0.5, 0, 0)


def test_defaults_of_the_checkpoint_are_taken_where_the_client_says_nothing(codec: TextCodec) -> None:
    defaults = {"min_p": 0.1, "repetition_penalty": 1.2, "presence_penalty": 0.3, "frequency_penalty": 0.4}
    others = copy(codec)
    others.default_sampling = SamplingParams(**defaults)
    intake = Intake(others, MODEL, MAX_MODEL_LEN)
    taken = make(intake).sampling
    assert {name: getattr(taken, name) for name in defaults} == defaults
    off = SamplingOptions(min_p=0.0, repetition_penalty=1.0, presence_penalty=0.0, frequency_penalty=0.0)
    said = make(intake, sampling=off).sampling
    assert (said.min_p, said.has_penalties) == (0.0, False)


def test_bias_is_ordered_and_words_are_tokens(intake: Intake) -> None:
    said = SamplingOptions(logit_bias={7: 1.0, 3: -2.0}, bad_words=["ab"], min_tokens=7, logprobs=0)
    sampling = make(intake, sampling=said).sampling
    assert sampling.logit_bias == ((3, -2.0), (7, 1.0))
    assert [len(word) for word in sampling.bad_words] == [2]
    assert (sampling.min_tokens, sampling.logprobs) == (7, 0)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"logit_bias": {1: 0.0, NUM_TOKENS: 1.0}}, f"logit_bias has token {NUM_TOKENS}"),
        ({"bad_words": ["ok", ""]}, "bad_words has ''"),
        ({"bad_words": ["a" * 65]}, "bad_words has 'aaa"),
        ({"bad_words": ["a"] * 301}, "bad_words has 301 words; at most 300"),
        ({"min_tokens": 8}, "min_tokens is 8 but the answer has at most 7 tokens"),
        ({"min_tokens": -1}, "min_tokens is -1"),
        ({"logprobs": 21}, "logprobs is 21"),
    ],
)
def test_what_does_not_go_with_the_model_or_the_answer_is_named(
    intake: Intake, said: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=re.escape(message)) as caught:
        make(intake, sampling=SamplingOptions(**said))
    assert caught.value.param == next(iter(said))


def test_top_k_beyond_the_vocabulary_keeps_all_and_fits_the_wire(intake: Intake) -> None:
    assert make(intake, sampling=SamplingOptions(top_k=2**40)).sampling.top_k == NUM_TOKENS


def test_stop_tokens_are_added_to_the_models_or_replace_them(intake: Intake) -> None:
    assert make(intake, stop_token_ids=[7, 8]).stop_token_ids == {7, 8, EOS}
    assert make(intake, stop_token_ids=[7, 8], ignore_eos=True).stop_token_ids == {7, 8}
    assert make(intake, ignore_eos=True).stop_token_ids == frozenset()


def test_cache_salt_is_empty_unless_given_and_bounded(intake: Intake) -> None:
    assert make(intake).cache_salt == ""
    assert make(intake, cache_salt="x" * 256).cache_salt == "x" * 256
    with pytest.raises(InvalidRequestError, match="cache_salt has 257 characters; at most 256") as caught:
        make(intake, cache_salt="x" * 257)
    assert caught.value.param == "cache_salt"


@pytest.mark.parametrize("num_prompt_tokens", [1, 9])
def test_prompt_and_answer_may_fill_the_context(intake: Intake, num_prompt_tokens: int) -> None:
    room = MAX_MODEL_LEN - num_prompt_tokens
    assert make(intake, (1,) * num_prompt_tokens, max_tokens=room).max_tokens == room


@pytest.mark.parametrize("num_prompt_tokens", [10, 11, 1000])
def test_prompt_that_leaves_no_room_is_too_long(intake: Intake, num_prompt_tokens: int) -> None:
    with pytest.raises(ContextLengthError, match=rf"has {num_prompt_tokens} tokens.*is 10 tokens") as caught:
        make(intake, (1,) * num_prompt_tokens)
    assert caught.value.param == "messages"


def test_more_tokens_than_fit_are_too_many_and_the_message_says_how_many_fit(intake: Intake) -> None:
    with pytest.raises(ContextLengthError, match="ask for at most 7") as caught:
        make(intake, max_tokens=8, max_tokens_param="max_completion_tokens")
    assert caught.value.param == "max_completion_tokens"


@pytest.mark.parametrize("asked", [0, -1])
def test_no_tokens_asked_for_is_invalid(intake: Intake, asked: int) -> None:
    with pytest.raises(InvalidRequestError, match=f"max_tokens is {asked}; it must be at least 1"):
        make(intake, max_tokens=asked)


def test_empty_prompt_is_invalid(intake: Intake) -> None:
    with pytest.raises(InvalidRequestError, match="the prompt has no tokens"):
        make(intake, ())


@pytest.mark.parametrize("token_id", [-1, NUM_TOKENS, 2**70])
def test_token_outside_the_vocabulary_is_named(intake: Intake, token_id: int) -> None:
    with pytest.raises(InvalidRequestError, match=f"messages has token {token_id}") as caught:
        make(intake, (1, token_id, 2))
    assert caught.value.param == "messages"
    with pytest.raises(InvalidRequestError, match=f"stop_token_ids has token {token_id}") as caught:
        make(intake, stop_token_ids=[token_id])
    assert caught.value.param == "stop_token_ids"
