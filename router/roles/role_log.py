"""What was decided, changed and ordered, for people: bounded, in memory, and in the process's log."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Generic, TypeVar

from core.errors import BatonError
from router.roles.changes import OperatorAction

MAX_ENTRIES = 1000  # a controller that decides every second and changes its mind every minute fills it in a day

MAX_TEXT_CHARS = 300  # of what somebody else wrote

T = TypeVar("T")

audit = logging.getLogger("baton.audit")


def one_line(text: str) -> str:
    """A text as it may stand in a log: without line ends and other control characters, and not too long."""
    printable = "".join(char if char.isprintable() else " " for char in text[: MAX_TEXT_CHARS + 1])
    return printable if len(printable) <= MAX_TEXT_CHARS else printable[: MAX_TEXT_CHARS - 3] + "..."


class Latest(Generic[T]):
    """The latest entries, newest first."""

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._entries: deque[T] = deque(maxlen=max_entries)

    def add(self, entry: T) -> None:
        """Keeps an entry; the oldest makes room."""
        self._entries.appendleft(entry)

    def newest(self, limit: int = 0) -> Sequence[T]:
        """At most `limit` of them; 0 for all."""
        return tuple(islice(self._entries, limit or None))


class AuditLog(Latest[OperatorAction]):
    """What operators have ordered: who, what, when, and how it ended.

    Args:
        unix_time: dates entries.
    """

    def __init__(self, unix_time: Callable[[], float]) -> None:
        super().__init__()
        self._unix_time = unix_time

    def note(self, actor: str, action: str, outcome: str) -> None:
        """Writes down how an order ended; texts may be anybody's."""
        texts = (one_line(text) for text in (actor or "unknown", action, outcome))
        self.add(OperatorAction(self._unix_time(), *texts))

    @contextmanager
    def refusing(self, actor: str, action: str) -> Iterator[None]:
        """Writes down what is refused within, before anything was ordered."""
        try:
            yield
        except BatonError as error:
            self.note(actor, action, f"refused: {error.message}")
            raise

    def add(self, entry: OperatorAction) -> None:
        """Keeps an entry, and writes it to the log `baton.audit`."""
        super().add(entry)
        audit.info("%s: %s: %s", entry.actor, entry.action, entry.outcome)
