"""Log-probabilities of tokens that have come but whose text is not shown yet. What they say: `core.logprobs`."""

from collections import deque
from collections.abc import Sequence

from core.logprobs import TokenLogprobs


class HeldLogprobs:
    """Keeps log-probabilities until the text of their tokens is shown.

    Attributes:
        num_chars: characters of text that tokens have given so far.
        num_shown: how many of these have been shown.
    """

    def __init__(self) -> None:
        self.num_chars = 0
        self.num_shown = 0
        self._held: deque[tuple[int, TokenLogprobs]] = deque()  # with the characters to show first

    def add(self, logprobs: Sequence[TokenLogprobs], *, is_cut: bool) -> None:
        """Takes those of the tokens that came last; `is_cut` when they end inside a character."""
        self._held.extend((self.num_chars + is_cut, each) for each in logprobs)

    def release(self) -> tuple[TokenLogprobs, ...]:
        """Those whose text has been shown, in order."""
        released = []
        while self._held and self._held[0][0] <= self.num_shown:
            released.append(self._held.popleft()[1])
        return tuple(released)

    def release_all(self) -> tuple[TokenLogprobs, ...]:
        """All that are left."""
        released = tuple(each for _, each in self._held)
        self._held.clear()
        return released
