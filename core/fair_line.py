"""What waits, in the order it is to go: by priority, then fairly among tenants, then first come, first served."""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from core.fairness import TokenCounters

T = TypeVar("T")

Turn = tuple[int, str]
"""Priority and tenant: with its age, what decides when something goes. A lower number is a higher priority."""


class FairLine(Generic[T]):
    """A line of things with ids. With one tenant and one priority it is a plain queue.

    Whoever has it says when a tenant is here and what it is served (`TokenCounters`), at any time.

    Args:
        counters: of the tenants.
    """

    def __init__(self, counters: TokenCounters) -> None:
        self._counters = counters
        self._waiting: dict[str, tuple[T, Turn]] = {}  # in order of arrival
        self._classes: dict[Turn, dict[str, T]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._waiting

    def __iter__(self) -> Iterator[T]:
        """In order of arrival."""
        return (item for item, _ in self._waiting.values())

    def __reversed__(self) -> Iterator[T]:
        """The latest arrival first."""
        return (item for item, _ in reversed(self._waiting.values()))

    def add(self, item_id: str, item: T, turn: Turn) -> None:
        """Something new waits; it is the last of its tenant and priority."""
        self._waiting[item_id] = item, turn
        self._classes.setdefault(turn, {})[item_id] = item

    def remove(self, item_id: str) -> T | None:
        """Takes something out of the line; None when it is not there."""
        if (entry := self._waiting.pop(item_id, None)) is None:
            return None
        item, turn = entry
        del self._classes[turn][item_id]
        if not self._classes[turn]:
            del self._classes[turn]
        return item

    def first(self, may_go: Callable[[T], bool]) -> T | None:
        """What is to go next of all that may; None when nothing may. Takes nothing out."""
        by_rank = sorted(self._classes, key=lambda each: rank(self._counters, each))
        return next((item for each in by_rank for item in self._classes[each].values() if may_go(item)), None)


def rank(counters: TokenCounters, turn: Turn) -> tuple[int, int]:
    """Where something stands among others now: the smaller goes first."""
    priority, tenant = turn
    return priority, counters.of(tenant)
