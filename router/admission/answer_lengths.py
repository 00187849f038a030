"""How long answers are, by those that have ended: how soon running sequences make way depends on it."""

FIRST_GUESS = 64.0  # tokens, until answers have ended
NUM_ANSWERS = 64  # that the mean is over, the latest most


class AnswerLengths:
    """A mean that follows.

    Attributes:
        mean: tokens of an answer; above 0.
    """

    def __init__(self) -> None:
        self.mean = FIRST_GUESS
        self._num_ended = 4  # the guess counts as so many at first

    def add(self, num_tokens: int) -> None:
        """An answer that had its place has ended, whole or not: the place is free again."""
        self._num_ended = min(self._num_ended + 1, NUM_ANSWERS)
        self.mean += (num_tokens - self.mean) / self._num_ended
