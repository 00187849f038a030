"""Reads that sources ask this worker for, where KV is pulled: each is carried out once, however often asked for."""

import asyncio
import logging
from collections import OrderedDict
from functools import partial

from core.errors import HandoffError
from core.ids import WorkerId
from decode_worker.receiver import Receiver
from kvtransfer.move import Direction, Move, MoveOutcome
from worker.links import Links
from worker.mailbox import Mailbox
from worker.read_order import ReadAnswer, ReadOrder

MAX_REMEMBERED = 4096  # ended reads whose end may be asked for again; far more than can be asked for at once

logger = logging.getLogger(__name__)


class ReadDesk:
    """The target's side of reads. Lives on the event loop; reaches the receiver by the mailbox.

    Args:
        links: carries reads out.
        mailbox: of the worker's loop.
        receiver: of the decode half; says which blocks are reserved for whom.
    """

    def __init__(self, links: Links, mailbox: Mailbox, receiver: Receiver) -> None:
        self._links = links
        self._mailbox = mailbox
        self._receiver = receiver
        self._reads: OrderedDict[tuple[WorkerId, str], asyncio.Task[ReadAnswer]] = OrderedDict()

    async def read(self, order: ReadOrder) -> ReadAnswer:
        """How a read has ended; begins it when it is asked for the first time. It goes on when nobody waits."""
        key = (order.source.worker, order.read_id)
        task = self._reads.get(key)
        if task is None:
            self._forget_oldest()
            task = self._reads[key] = asyncio.create_task(self._answer(order))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Gives up what is under way; sources are not told."""
        for task in self._reads.values():
            task.cancel()
        await asyncio.gather(*self._reads.values(), return_exceptions=True)

    async def _answer(self, order: ReadOrder) -> ReadAnswer:
        """A defect is an answer, too: the source would ask for another one for ever."""
        try:
            return await self._carry_out(order)
        except Exception as error:
            logger.exception("read %s from worker %s failed by a defect", order.read_id, order.source.worker)
            return ReadAnswer(MoveOutcome(HandoffError(f"read {order.read_id} failed at its target: {error!r}")))

    async def _carry_out(self, order: ReadOrder) -> ReadAnswer:
        if not order.source_ids or not order.target_ids:
            return ReadAnswer(MoveOutcome(HandoffError(f"read {order.read_id} names no blocks; nothing is read")))
        is_reserved = partial(self._receiver.is_reserved, order.handoff_id, order.source.worker, order.target_ids)
        if not await self._mailbox.ask(is_reserved):
            error = HandoffError(
                f"blocks {list(order.target_ids)} are not reserved for handoff {order.handoff_id} from "
                f"{order.source.worker}; nothing is read into them"
            )
            return ReadAnswer(MoveOutcome(error))
        move = Move(
            order.source.worker, Direction.READ, order.target_ids, order.source_ids, skip_tokens=order.skip_tokens
        )
        return await self._links.read(order.source, move)

    def _forget_oldest(self) -> None:
        """Makes room for one more; what is under way is never forgotten, however old."""
        ended = (key for key, task in self._reads.items() if task.done())
        if len(self._reads) >= MAX_REMEMBERED and (oldest := next(ended, None)) is not None:
            del self._reads[oldest]
