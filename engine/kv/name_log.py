"""Which block names a pool has got and lost since somebody last asked. Names only; who hears of them is not here."""

from collections.abc import Callable, Iterable

from core.blocks import BlockName
from core.kv_events import KvEvents

MAX_PENDING = 65_536  # names; a step changes hundreds at most, so more means that nobody asks


class NameLog:
    """Notes a name before anything about it changes; `take` says what came of it.

    A name is present when any partition of the pool has it, or its host memory: moving from one to the other is no
    change, and neither is what is stored and dropped between two questions, unless a snapshot has shown it meanwhile.
    When nobody asks for long, changes are forgotten and their numbers left out, which tells whoever asks then that
    some are missing.

    Args:
        is_present: whether the pool has a name now.
        all_names: every name it has now; repeated ones do no harm.
    """

    def __init__(self, is_present: Callable[[BlockName], bool], all_names: Callable[[], Iterable[BlockName]]) -> None:
        self._is_present = is_present
        self._all_names = all_names
        self._was_present: dict[BlockName, bool] = {}
        self._told_apart: set[BlockName] = set()  # snapshots have told some of a change, the others know nothing yet
        self._next = 0

    def touch(self, name: BlockName) -> None:
        """Says that something about a name is about to change."""
        if name not in self._was_present:
            self._was_present[name] = self._is_present(name)
        if len(self._was_present) > MAX_PENDING:
            self._next += len(self._was_present)
            self._was_present.clear()
            self._told_apart.clear()

    def take(self) -> KvEvents:
        """The changes since the last call, and since every snapshot after it; maybe none."""
        touched, self._was_present = self._was_present, {}
        told_apart, self._told_apart = self._told_apart, set()
        present = {name: self._is_present(name) for name in touched}
        news = [name for name in touched if present[name] != touched[name] or name in told_apart]
        events = KvEvents(
            self._next,
            stored=tuple(name for name in news if present[name]),
            dropped=tuple(name for name in news if not present[name]),
        )
        self._next = events.next
        return events

    def snapshot(self) -> tuple[int, tuple[BlockName, ...]]:
        """Number of the next event, and all names that are present now, each once.

        What has changed since the last `take` is in it, and comes with the next one again; also when it has changed
        back by then, for whoever got the snapshot does not know that.
        """
        self._told_apart.update(name for name, was in self._was_present.items() if self._is_present(name) != was)
        return self._next, tuple(dict.fromkeys(self._all_names()))
