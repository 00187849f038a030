"""Deadlines of many things at once, looked at often and rarely due."""

import heapq

SPARE_ENTRIES = 64  # outdated heap entries that are not worth a rebuild


class Deadlines:
    """One deadline per key. Setting and dropping take O(log n); finding that nothing is due takes O(1)."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []  # with outdated entries: few, or fewer than keys
        self._by_key: dict[str, float] = {}

    def set(self, key: str, deadline_s: float) -> None:
        """Gives a key a deadline on the clock, in place of any earlier one."""
        self._by_key[key] = deadline_s
        heapq.heappush(self._heap, (deadline_s, key))
        self._compact()

    def drop(self, key: str) -> None:
        """Takes a key's deadline away; a key without one is ignored."""
        if self._by_key.pop(key, None) is not None:
            self._compact()

    def take_due(self, now_s: float) -> list[str]:
        """The keys whose deadline is before `now_s`, earliest first; they have none afterwards."""
        due = []
        while self._heap and self._heap[0][0] < now_s:
            deadline_s, key = heapq.heappop(self._heap)
            if self._by_key.get(key) == deadline_s:
                del self._by_key[key]
                due.append(key)
        return due

    def _compact(self) -> None:
        """Keeps deadlines far ahead of keys long gone from piling up; amortized O(1)."""
        if len(self._heap) > 2 * len(self._by_key) + SPARE_ENTRIES:
            self._heap = [(deadline_s, key) for key, deadline_s in self._by_key.items()]
            heapq.heapify(self._heap)
