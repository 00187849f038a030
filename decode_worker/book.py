"""All sequences of a decode half, from the first word about them to the last, and the ids of those that are gone."""

from collections import OrderedDict

from core.errors import BatonError, CancelledRequestError
from core.events import ReturnedWork
from decode_worker.sequence import Sequence
from kvtransfer.port import Outbox, Reservation

MAX_TOMBSTONES = 4096  # ended handoffs remembered, so that a late begin is refused; far more than can be in flight


class SequenceBook:
    """Who is here, and what routers and sources are told of them.

    Args:
        outbox: where returned work for routers goes.

    Attributes:
        sequences: by handoff id, in the order of the first word.
        ended: ids of the latest handoffs that have ended; none of them comes again.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self.sequences: dict[str, Sequence] = {}
        self.ended: OrderedDict[str, None] = OrderedDict()

    def give_back(self, sequence: Sequence, code: str, message: str, *, retryable: bool = True) -> None:
        """Tells the router, if there is one, that a sequence has ended unfinished."""
        if sequence.assignment is not None:
            self._outbox.returned(sequence.router_id, ReturnedWork(sequence.handoff_id, code, message, retryable))

    def reply(self, sequence: Sequence, answer: Reservation | BatonError) -> None:
        """Answers a source that waits for blocks; nobody else."""
        if sequence.begin_reply is not None:
            sequence.begin_reply(answer)
            sequence.begin_reply = None

    def remove(self, sequence: Sequence) -> None:
        """Remembers that a sequence has ended, and nothing else of it."""
        self.reply(sequence, CancelledRequestError(f"handoff {sequence.handoff_id} has ended"))
        del self.sequences[sequence.handoff_id]
        self.bury(sequence.handoff_id)

    def bury(self, handoff_id: str) -> None:
        """Remembers that a handoff has ended, whether it was ever here or not."""
        self.ended[handoff_id] = None
        if len(self.ended) > MAX_TOMBSTONES:
            self.ended.popitem(last=False)
