"""What a worker answers to a router that wants to know all its block names."""

from collections.abc import Callable

from core.kv_events import KvSnapshot
from engine.kv.name_log import NameLog
from worker.mailbox import Mailbox

NAMES_PER_PART = 8192  # 128 KiB on the wire, and a few milliseconds of a router that takes them in

Reply = Callable[[list[KvSnapshot]], None]
"""Takes all parts of a snapshot, at least one. Called exactly once, on the worker's loop."""


class NameDesk:
    """Makes snapshots on the worker's loop, so that they agree with the events.

    Args:
        name_log: of the loop's pool.
        mailbox: of the loop.
    """

    def __init__(self, name_log: NameLog, mailbox: Mailbox) -> None:
        self._name_log = name_log
        self._mailbox = mailbox

    def ask(self, reply: Reply) -> None:
        """Replies with a snapshot. From any thread."""
        self._mailbox.post(lambda: reply(self._parts()))

    def _parts(self) -> list[KvSnapshot]:
        following, names = self._name_log.snapshot()
        firsts = range(0, max(1, len(names)), NAMES_PER_PART)
        return [
            KvSnapshot(following, names[first : first + NAMES_PER_PART], is_last=first == firsts[-1])
            for first in firsts
        ]
