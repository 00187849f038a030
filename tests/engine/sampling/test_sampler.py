from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.sampling import SamplingParams
from engine.plan import Draw
from engine.sampling.rules import LogitRules
from engine.sampling.sampler import sample
from tests.engine.sampling.test_choice import sampling_params

GREEDY = SamplingParams(temperature=0.0)
VOCAB = 700

penalties = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.8]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    presence_penalty=st.sampled_from([0.0, -1.5, 0.5]),
    frequency_penalty=st.sampled_from([0.0, 0.7]),
    logit_bias=st.sampled_from([(), ((3, 4.0), (650, -100.0))]),
    bad_words=st.sampled_from([(), ((5,), (1, 2))]),
    min_tokens=st.sampled_from([0, 3]),
    logprobs=st.sampled_from([None, 0, 2]),
)


@st.composite
def draws(pick: st.DrawFn) -> Draw:
    params = replace(
        pick(st.one_of(sampling_params, st.just(GREEDY), penalties)), seed=pick(st.sampled_from([0, 1, 2**63 - 1]))
    )
    history = pick(st.lists(st.sampled_from([1, 5, 9, 650]), min_size=1, max_size=6))
    position = pick(st.integers(0, len(history) - 1))
    return Draw(params, position, LogitRules.of(params, {9, 3}, history, position))


def row(number: int) -> torch.Tensor:
    """A row of logits, by its number: some flat, some with a few tokens far above the others."""
    generator = torch.Generator().manual_seed(number)
    values = torch.randn(VOCAB, generator=generator) * 2
    values[torch.randperm(VOCAB, generator=generator)[:20]] += 10.0 * (number % 2)
    return values


@settings(max_examples=150)
@given(st.lists(draws(), min_size=1, max_size=7), st.data())
def test_row_is_drawn_the_same_in_any_batch_and_order(asked: list[Draw], data: st.DataObject) -> None:
    """Bitwise: the same row of logits, the same parameters and the same position give the same token and scores."""
    rows = torch.stack([row(i) for i in range(len(asked))])
    together = sample(rows.clone(), asked)
    alone = [sample(rows[i : i + 1].clone(), asked[i : i + 1]) for i in range(len(asked))]
    order = data.draw(st.permutations(range(len(asked))))
    permuted = sample(rows[list(order)], [asked[i] for i in order])
    assert together.tokens == [single.tokens[0] for single in alone]
    assert permuted.tokens == [together.tokens[i] for i in order]
    assert permuted.logprobs == {
        place: together.logprobs[i] for place, i in enumerate(order) if i in together.logprobs
    }


def test_row_of_a_real_vocabulary_is_drawn_the_same_among_many() -> None:
    """Wide and long enough that kernels split rows, vectorise and fall back to sorting whole rows."""
    num_rows, vocab_size = 37, 20_011
    rows = torch.randn(num_rows, vocab_size, generator=torch.Generator().manual_seed(0)) * 3
    kinds = [{}, {"top_p": 0.9}, {"top_k": 40}, {"top_k": 300, "top_p": 0.95}, {"min_p": 0.01}, {"temperature": 0.0}]
    asked = [Draw(SamplingParams(seed=i, **kinds[i % len(kinds)]), position=i) for i in range(num_rows)]
    together = sample(rows.clone(), asked).tokens
    for i in range(num_rows):
        assert sample(rows[i : i + 1].clone(), asked[i : i + 1]).tokens == [together[i]]
    assert sample(rows[5:19].clone(), asked[5:19]).tokens == together[5:19]


def test_same_seed_at_other_positions_draws_other_tokens() -> None:
    rows = torch.zeros(200, VOCAB)
    tokens = sample(rows, [Draw(SamplingParams(seed=4), position) for position in range(200)]).tokens
    assert len(set(tokens)) > 150


def test_greedy_takes_the_first_of_equal_logits() -> None:
    logits = torch.tensor([[0.0, 2.0, 2.0], [3.0, 3.0, 1.0]])
    assert sample(logits, [Draw(GREEDY, 0)] * 2).tokens == [1, 0]


def test_filters_do_not_change_a_greedy_row() -> None:
    params = SamplingParams(temperature=0.0, top_k=5, top_p=0.1, min_p=0.9)
    assert sample(row(0)[None], [Draw(params, 0)]).tokens == [int(row(0).argmax())]


def test_draws_of_no_rows_are_none() -> None:
    sampled = sample(torch.empty(0, VOCAB), [])
    assert (sampled.tokens, sampled.logprobs) == ([], {})


def test_tensors_of_inference_mode_are_accepted_outside_it() -> None:
    with torch.inference_mode():
        logits = row(0)[None] + 0
    params = SamplingParams(temperature=0.0, logit_bias=((7, 100.0),))
    assert sample(logits, [Draw(params, 0, LogitRules.of(params, (), [1], 0))]).tokens == [7]


def test_logprobs_are_of_the_logits_as_they_were() -> None:
    params = SamplingParams(temperature=0.5, top_k=1, logit_bias=((7, 100.0),), repetition_penalty=2.0, logprobs=3)
    plain = SamplingParams(logprobs=0)
    rules = LogitRules.of(params, (), [1, 2], 0)
    sampled = sample(torch.stack((row(0), row(1), row(2))), [Draw(params, 0, rules), Draw(GREEDY, 0), Draw(plain, 0)])
    expected = torch.log_softmax(row(0).double(), dim=-1)
    first = sampled.logprobs[0]
    assert sampled.tokens[0] == first.token_id == 7
    assert np.isclose(first.logprob, expected[7], atol=1e-5)
    assert list(first.top_ids) == expected.topk(3).indices.tolist()
    assert np.allclose(first.top_logprobs, expected.topk(3).values, atol=1e-5)
    assert 1 not in sampled.logprobs
    assert (sampled.logprobs[2].token_id, sampled.logprobs[2].top_ids) == (sampled.tokens[2], ())


def test_more_logprobs_than_tokens_give_all_tokens() -> None:
    params = SamplingParams(temperature=0.0, logprobs=20)
    (logprobs,) = sample(torch.tensor([[0.0, 1.0, 3.0]]), [Draw(params, 0)]).logprobs.values()
    assert logprobs.top_ids == (2, 1, 0)
