"""When readers of answers hear that tokens have come: at once, and under load together. Not what they read."""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

logger = logging.getLogger(__name__)


class Wakeable(Protocol):
    """Somebody who is told that there are news."""

    def notify(self) -> None:
        """Has it look; harmless when it has done so already."""
        ...


class Wakes:
    """Wakes readers in rounds, which take half of the router's time at most.

    A reader that is woken writes to its client, and that costs far more than the tokens it writes. So after a round
    as much time passes before the next one as the round took, in which reports of workers are read: the more come,
    the more tokens go out with a write. While the router has time to spare, a round takes less than a step of a
    worker, and nothing waits:

        reports   a  b           c d e       f
        rounds     [a|    ] [b|    ] [cde|       ] [f|   ]      each: writes | as long again

    Args:
        busy_s: for how many seconds the router has computed so far; time in which others have its core is none.
    """

    def __init__(self, busy_s: Callable[[], float]) -> None:
        self._busy_s = busy_s
        self._due: dict[Wakeable, None] = {}
        self._is_in_round = False

    def add(self, reader: Wakeable) -> None:
        """There are news for a reader; several for the same one until its round are told as one."""
        self._due[reader] = None
        if not self._is_in_round:
            self._is_in_round = True
            asyncio.get_running_loop().call_soon(self._wake)

    def _wake(self) -> None:
        started_s, due = self._busy_s(), self._due
        self._due = {}
        for reader in due:
            try:
                reader.notify()
            except Exception:
                logger.exception("a defect while a reader was woken")
        asyncio.get_running_loop().call_soon(self._have_read, started_s)

    def _have_read(self, started_s: float) -> None:
        """All have had their turn; what they wrote goes to the network before the event loop's next one."""
        asyncio.get_running_loop().call_soon(self._have_written, started_s)

    def _have_written(self, started_s: float) -> None:
        asyncio.get_running_loop().call_later(self._busy_s() - started_s, self._end_round)

    def _end_round(self) -> None:
        if self._due:
            self._wake()
        else:
            self._is_in_round = False
