from hypothesis import given
from hypothesis import strategies as st

from engine.sampling.bad_words import BadWordMatcher

token_ids = st.integers(0, 3)
bad_words = st.lists(st.lists(token_ids, min_size=1, max_size=4), min_size=1, max_size=6)


@given(bad_words, st.lists(token_ids, max_size=30))
def test_completing_tokens_are_those_that_end_a_word(words: list[list[int]], answer: list[int]) -> None:
    matcher = BadWordMatcher(words)
    for length in range(len(answer) + 1):
        so_far = answer[:length]
        expected = {word[-1] for word in words if [*so_far, word[-1]][-len(word) :] == word}
        assert matcher.completing() == expected
        if length < len(answer):
            matcher.add(answer[length])


def test_word_of_one_token_never_comes() -> None:
    assert BadWordMatcher([[5], [7, 8]]).completing() == {5}
