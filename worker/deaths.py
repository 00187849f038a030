"""Deaths of other workers: told to the halves when nothing of the dead is under way. Who is dead, others say."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

from core.ids import WorkerId
from worker.mailbox import Mailbox
from worker.peers import Peers
from worker.task_set import TaskSet

logger = logging.getLogger(__name__)


class DeathDesk:
    """Passes on that workers are dead. Lives on the event loop; reaches the halves by the mailbox.

    The bytes of a dead process may still lie in this one's sockets. The halves free its blocks when they hear of the
    death, so they hear of it only when the transports have taken those bytes in. Where one does not in time, they do
    not hear, and the blocks stay quarantined until the death is told again.

    Args:
        peers: lets go of the dead at once.
        mailbox: of the worker's loop.
        event_loop: where this object lives.
        halves: hear, on that loop, that a worker and all its earlier incarnations are dead; again and again.
    """

    def __init__(
        self,
        peers: Peers,
        mailbox: Mailbox,
        event_loop: asyncio.AbstractEventLoop,
        halves: Sequence[Callable[[WorkerId], None]],
    ) -> None:
        self._peers = peers
        self._mailbox = mailbox
        self._halves = tuple(halves)
        self._tasks = TaskSet(event_loop)

    def worker_gone(self, worker: WorkerId) -> None:
        """This incarnation of a worker and all earlier ones are dead. Idempotent."""
        self._peers.worker_gone(worker)
        self._tasks.start(self._tell(worker))

    def worker_superseded(self, worker: WorkerId) -> None:
        """A newer incarnation of a worker exists, so all earlier ones are dead."""
        self.worker_gone(WorkerId(worker.name, worker.incarnation - 1))

    async def close(self) -> None:
        """Gives up waiting; the halves are not told."""
        await self._tasks.close()

    async def _tell(self, worker: WorkerId) -> None:
        if not await self._peers.is_buried(worker):
            logger.error("transports do not let go of dead worker %s; its blocks stay quarantined", worker)
            return
        for hear in self._halves:
            self._mailbox.post(partial(hear, worker))
