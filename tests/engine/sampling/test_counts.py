import pickle
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from engine.sampling.counts import TokenCounts

some_tokens = st.lists(st.integers(0, 60), max_size=120)


@given(some_tokens, some_tokens)
def test_counts_are_those_of_the_answer_over_all_tokens_seen(prompt: list[int], answer: list[int]) -> None:
    counts = TokenCounts(prompt)
    for length, token_id in enumerate(answer, start=1):
        counts.add(token_id)
        expected = Counter(dict.fromkeys(prompt, 0)) + Counter()
        expected.update(answer[:length])
        seen = dict(zip(counts.token_ids.tolist(), counts.counts.tolist(), strict=True))
        assert len(counts.token_ids) == len(seen)
        assert seen == dict.fromkeys(prompt, 0) | expected


def test_nothing_seen_is_empty() -> None:
    assert (len(TokenCounts().token_ids), len(TokenCounts().counts)) == (0, 0)


def test_pickled_copy_says_the_same_and_carries_no_more() -> None:
    counts = TokenCounts([5, 3, 5])
    for token_id in (9, 3, 9, *range(100, 120)):
        counts.add(token_id)
    copy = pickle.loads(pickle.dumps(counts))  # noqa: S301 - our own
    assert copy.token_ids.tolist() == counts.token_ids.tolist()
    assert copy.counts.tolist() == counts.counts.tolist()
    assert set(vars(copy)) == {"_token_ids", "_counts", "_num_distinct"}
