"""The dashboard's states for any number of viewers: one computation a tick, and none while nobody looks.

Not the HTTP answer: `router.dashboard.stream`.
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from dataclasses import asdict

from core.errors import UnavailableError
from router.dashboard.state import StateSource

TICK_S = 1.0
LOOK_S = 0.1  # how long a change of role may stay unseen
MAX_VIEWERS = 64  # each is a connection that is written to every second

logger = logging.getLogger(__name__)


class DashboardFeed:
    """Tells viewers the newest state. One that reads slowly misses states, so nothing queues up.

    Args:
        source: where states come from.
        tick_s: seconds between states while no role changes.
    """

    def __init__(self, source: StateSource, tick_s: float = TICK_S) -> None:
        self._source = source
        self._tick_s = tick_s
        self._num_viewers = 0
        self._ticking: asyncio.Task[None] | None = None
        self._state = b""
        self._marks: object = None  # of the roles in it
        self._due_s = 0.0  # when the next one is, on the loop's clock
        self._version = 0  # of the state
        self._news = asyncio.Event()  # set when this version has been replaced; the next has one of its own
        self._is_closed = False

    def close(self) -> None:
        """Ends what viewers are told, and so their connections. To be called before the HTTP server stops."""
        self._is_closed = True
        self._news.set()

    async def states(self) -> AsyncGenerator[bytes, None]:
        """States as JSON: one at once, one a tick, and one as soon as a role changes; ends with `close`.

        Raises:
            UnavailableError: there are too many viewers.
        """
        if self._num_viewers >= MAX_VIEWERS:
            raise UnavailableError(f"{MAX_VIEWERS} pages look at the dashboard already; close one of them")
        self._enter()
        try:
            seen = 0
            while not self._is_closed:
                if self._version == seen:
                    await self._news.wait()
                else:
                    seen = self._version
                    yield self._state
        finally:
            self._leave()

    def _enter(self) -> None:
        if self._ticking is None:
            self._publish()
            self._ticking = asyncio.create_task(self._tick())
        self._num_viewers += 1

    def _leave(self) -> None:
        self._num_viewers -= 1
        if not self._num_viewers and self._ticking is not None:
            self._ticking.cancel()
            self._ticking = None

    async def _tick(self) -> None:
        """Publishes until it is cancelled. A defect costs a tick: the page shows that it hears nothing."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                self._look()
            except Exception:
                logger.exception("a defect in the router: the dashboard's state could not be built")
                await asyncio.sleep(self._tick_s)

    def _look(self) -> None:
        is_due = asyncio.get_running_loop().time() >= self._due_s
        if is_due or self._source.role_marks() != self._marks:
            self._publish()

    def _publish(self) -> None:
        self._marks = self._source.role_marks()
        self._due_s = asyncio.get_running_loop().time() + self._tick_s
        self._state = json.dumps(asdict(self._source.build()), separators=(",", ":"), allow_nan=False).encode("ascii")
        self._version += 1
        self._news.set()
        self._news = asyncio.Event()
