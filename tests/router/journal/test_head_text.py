import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.request import FinishReason, GenerationRequest
from core.sampling import MAX_SEED, SamplingParams
from router.journal.head import RequestHead
from router.journal.head_text import head_from_text, head_to_text, tokens_from_text, tokens_to_text
from tests.router.journal.heads import head_of

TOKENS = st.lists(st.integers(0, 2**32 - 1), max_size=20).map(tuple)
HEADS = st.builds(
    RequestHead,
    request=st.builds(
        GenerationRequest,
        request_id=st.text(max_size=8),
        prompt=TOKENS,
        max_tokens=st.integers(1, 10**6),
        sampling=st.builds(
            SamplingParams,
            temperature=st.floats(0, 2),
            seed=st.integers(0, MAX_SEED),
            logit_bias=st.lists(st.tuples(st.integers(0, 99), st.floats(-100, 100)), max_size=3).map(tuple),
            bad_words=st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=3).map(tuple), max_size=3).map(
                tuple
            ),
            logprobs=st.none() | st.integers(0, 20),
        ),
        stop_token_ids=st.frozensets(st.integers(0, 99)),
        cache_salt=st.text(max_size=8),
        tenant=st.text(max_size=8),
        priority=st.integers(-9, 9),
        timeout_s=st.none() | st.floats(0.5, 9),
    ),
    stops=st.lists(st.text(min_size=1, max_size=4), max_size=3).map(tuple),
    created_s=st.floats(0, 2e9),
    deadline_s=st.floats(0, 2e9),
    fingerprint=st.text(max_size=8),
    rendering=st.dictionaries(st.text(max_size=4), st.text(max_size=4) | st.booleans(), max_size=3),
    is_kept=st.booleans(),
)


@given(HEADS)
def test_head_is_read_as_it_was_written(head: RequestHead) -> None:
    assert head_from_text(head_to_text(head)) == head


@given(TOKENS)
def test_tokens_are_read_as_they_were_written(token_ids: tuple[int, ...]) -> None:
    assert tokens_from_text(tokens_to_text(token_ids)) == token_ids


@pytest.mark.parametrize("text", ["", "null", "{}", "[]", '{"request": 3}', head_to_text(head_of())[:-9], '"\ufffd"'])
def test_what_is_no_head_is_none(text: str) -> None:
    assert head_from_text(text) is None


@pytest.mark.parametrize(
    ("token_ids", "reason"),
    [((), None), ((1,), None), ((1, 256), FinishReason.STOP), ((1,) * 100, FinishReason.LENGTH)],
)
def test_why_an_answer_ended_is_in_its_tokens(token_ids: tuple[int, ...], reason: FinishReason | None) -> None:
    assert head_of().finish_reason(token_ids) is reason
