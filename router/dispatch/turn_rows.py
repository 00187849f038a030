"""What workers have been given, by whose turn it is, as arrays: how much each serves before something new."""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from core.fair_line import Turn
from router.dispatch.worker_rows import Floats


class TurnRows:
    """One book by turns per row. Turns of which nobody has anything take no room."""

    def __init__(self) -> None:
        self._books: list[Mapping[Turn, int]] = []
        self._totals: Counter[Turn] = Counter()
        self._of: dict[Turn, Floats] = {}  # [num_rows] each

    def insert(self, row: int) -> None:
        """A row with an empty book; those from `row` on move up by one."""
        self._books.insert(row, {})
        self._of = {turn: np.insert(numbers, row, 0.0) for turn, numbers in self._of.items()}

    def delete(self, row: int) -> None:
        """Takes a row out; those after it move down by one."""
        self.set(row, {})
        del self._books[row]
        self._of = {turn: np.delete(numbers, row) for turn, numbers in self._of.items()}

    def set(self, row: int, book: Mapping[Turn, int]) -> None:
        """The book of a row, which is kept as it is now."""
        before, self._books[row] = self._books[row], dict(book)
        for turn, number in book.items():
            if (num_before := before.get(turn, 0)) != number:
                self._put(turn, row, num_before, number)
        for turn in before:
            if turn not in book:
                self._put(turn, row, before[turn], 0)

    def is_only(self, turn: Turn) -> bool:
        """Whether nothing of any other turn is in any book."""
        return len(self._of) == (turn in self._of)

    def total(self) -> Floats:
        """All that each row has: [num_rows]."""
        return np.sum(list(self._of.values()), axis=0) if self._of else np.zeros(len(self._books))

    def before(self, turn: Turn, num_new: int, coming: Mapping[Turn, Floats]) -> Floats:
        """As `router.admission.outlook.count_before`, for each row with its book and what comes besides.

        Args:
            turn: of what is new.
            num_new: tokens or sequences of it.
            coming: added to the books, by turn; [num_rows] each.

        Returns:
            By row: [num_rows].
        """
        priority, _ = turn
        nothing = np.zeros(len(self._books))
        own = self._of.get(turn, nothing) + coming.get(turn, 0.0)
        others = [each for each in {**self._of, **coming} if each != turn and each[0] <= priority]
        ahead = [self._of.get(each, nothing) + coming.get(each, 0.0) for each in others]
        for each, numbers in zip(others, ahead, strict=True):
            if each[0] == priority:
                np.minimum(numbers, own + num_new, out=numbers)
        num_before: Floats = np.sum([own, *ahead], axis=0)
        return num_before

    def _put(self, turn: Turn, row: int, before: int, number: int) -> None:
        self._totals[turn] += number - before
        if not self._totals[turn]:
            del self._totals[turn]
            self._of.pop(turn, None)
            return
        if turn not in self._of:
            self._of[turn] = np.zeros(len(self._books))
        self._of[turn][row] = number
