"""Finds the smallest number of workers that will do, by asking about as few numbers as possible. No simulation."""

import math

STEP_UP = 1.5  # from a number that does not do to the next


class SmallestNumber:
    """Asks about numbers, from a guess up to one that does, then between; where a number does, larger ones do too.

    Args:
        guess: where to begin, at least 1.
        most: no larger number is asked about.

    Attributes:
        failed: the largest number known not to do; 0 when none is.
        found: the smallest known to do; None when none is.
    """

    def __init__(self, guess: int, most: int) -> None:
        self.failed = 0
        self.found: int | None = None
        self._guess = guess
        self._most = most

    @property
    def next(self) -> int | None:
        """The number to ask about; None when the answer is known, or would be above the most."""
        if self.found is None:
            number = min(max(self._guess, self.failed + 1, math.ceil(self.failed * STEP_UP)), self._most)
        else:
            number = (self.failed + self.found) // 2
        return number if number > self.failed else None

    def limit(self, most: int) -> None:
        """No larger number is of interest any more."""
        self._most = min(self._most, most)

    def answer(self, *, does: bool) -> None:
        """Whether the number in `next` does."""
        number = self.next
        assert number is not None, "nothing was asked"
        if does:
            self.found = number
        else:
            self.failed = number
