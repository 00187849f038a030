"""Values of core types for hypothesis, as any request may hold them."""

import hypothesis.strategies as st

from core.logprobs import TokenLogprobs
from core.sampling import (
    MAX_BIAS,
    MAX_LOGPROBS,
    MAX_PENALTY,
    MAX_REPETITION_PENALTY,
    MAX_SEED,
    MAX_TEMPERATURE,
    MIN_REPETITION_PENALTY,
    SamplingParams,
)

UINT32 = st.integers(0, 2**32 - 1)
_PENALTIES = st.floats(-MAX_PENALTY, MAX_PENALTY)
_LOGPROBS = st.floats(max_value=0, width=32)

sampling_params = st.builds(
    SamplingParams,
    temperature=st.floats(0, MAX_TEMPERATURE),
    top_p=st.floats(0, 1, exclude_min=True),
    top_k=UINT32,
    seed=st.integers(0, MAX_SEED),
    min_p=st.floats(0, 1),
    repetition_penalty=st.floats(MIN_REPETITION_PENALTY, MAX_REPETITION_PENALTY),
    presence_penalty=_PENALTIES,
    frequency_penalty=_PENALTIES,
    logit_bias=st.dictionaries(UINT32, st.floats(-MAX_BIAS, MAX_BIAS), max_size=3).map(
        lambda biases: tuple(sorted(biases.items()))
    ),
    bad_words=st.lists(st.lists(UINT32, min_size=1, max_size=3).map(tuple), max_size=3).map(tuple),
    min_tokens=UINT32,
    logprobs=st.none() | st.integers(0, MAX_LOGPROBS),
)
token_logprobs = st.lists(st.tuples(UINT32, _LOGPROBS), max_size=3).flatmap(
    lambda tops: st.builds(
        TokenLogprobs,
        token_id=UINT32,
        logprob=_LOGPROBS,
        top_ids=st.just(tuple(token_id for token_id, _ in tops)),
        top_logprobs=st.just(tuple(logprob for _, logprob in tops)),
    )
)
