"""Which tokens would complete a forbidden sequence of tokens in one answer; grows by one token a step."""

from collections import defaultdict, deque
from collections.abc import Sequence


class BadWordMatcher:
    """Follows one answer from its start. A word is matched within the answer, never across the end of the prompt.

    Args:
        words: sequences of token ids, at least one, none empty.
    """

    def __init__(self, words: Sequence[Sequence[int]]) -> None:
        self._last_by_beginning: defaultdict[tuple[int, ...], set[int]] = defaultdict(set)
        for *beginning, last in words:
            self._last_by_beginning[tuple(beginning)].add(last)
        self._lengths = {len(beginning) for beginning in self._last_by_beginning}
        self._recent: deque[int] = deque(maxlen=max(self._lengths))

    def add(self, token_id: int) -> None:
        """Takes the next token of the answer."""
        self._recent.append(token_id)

    def completing(self) -> set[int]:
        """The tokens that must not come next; work is proportional to the longest word."""
        recent = tuple(self._recent)
        ends = (recent[len(recent) - length :] for length in self._lengths if length <= len(recent))
        return set().union(*(self._last_by_beginning.get(end, ()) for end in ends))
