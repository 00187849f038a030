"""Writing prefixes into the blocks of peers that ask for them. Pure state on the worker's loop; knows no gRPC.

    asked ──> WRITING ──the write ends──> answered, and the id is remembered as ended

The blocks are leased while the write is under way, and quarantined when nobody waits for it any more: a write cannot
be called back, so they are let go when it has ended, and not before. Until then those before them in the prompt are
held as running: eviction relies on it that who holds a block holds all those before it, and lets go of them last.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from core.blocks import BlockName
from core.ids import WorkerId
from engine.kv.accounting import Hold
from engine.kv.pool import BlockPool
from kvtransfer.move import BlockMoves, Direction, Move, MoveOutcome
from kvtransfer.prefix_port import FetchEnd
from worker.mailbox import Mailbox
from worker.ways import Way, way_of

MAX_TOMBSTONES = 4096  # ended pushes remembered, so that a late order is refused; far more than can be in flight

PushReply = Callable[[FetchEnd], None]
"""Tells a target how its push ended. Called exactly once, on the worker's loop."""

EndReply = Callable[[Way | None], None]
"""Hears that nothing of a push is under way, and how it went if it did. Called exactly once, on the worker's loop."""


@dataclass(frozen=True, slots=True)
class PushOrder:
    """What a target asks for.

    Attributes:
        fetch_id: unique on the target.
        target: who wants the blocks; connected to.
        names: of the prompt's blocks from the first one on to the last one that is wanted, in order.
        block_ids: the target's blocks for the last of them, in the same order; it has those before.
    """

    fetch_id: str
    target: WorkerId
    names: Sequence[BlockName]
    block_ids: Sequence[int]

    @property
    def num_present(self) -> int:
        """Leading blocks that the target has."""
        return len(self.names) - len(self.block_ids)


@dataclass(slots=True)
class _Push:
    """A write under way, and who wants to hear of its end.

    Attributes:
        before: the prompt's blocks before those that are written.
        block_ids: those that are written.
        reply: hears of the end.
        hold: of those that are written.
        end_replies: others that hear of it.
    """

    before: Sequence[int]
    block_ids: Sequence[int]
    reply: PushReply
    hold: Hold = Hold.LEASED
    end_replies: list[EndReply] = field(default_factory=list)


class PrefixExporter:
    """All pushes of a worker. From the worker's loop only.

    Args:
        pool: where the blocks are.
        moves: writes them.
        mailbox: of the loop; ends of writes come by it.
        digest_every: checksums go with every so manyth block, the first one first; 0 for none.
    """

    def __init__(self, pool: BlockPool, moves: BlockMoves, mailbox: Mailbox, digest_every: int = 0) -> None:
        self._pool = pool
        self._moves = moves
        self._mailbox = mailbox
        self._digest_every = digest_every
        self._pushes: dict[tuple[WorkerId, str], _Push] = {}
        self._ended: OrderedDict[tuple[WorkerId, str], Way | None] = OrderedDict()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being written."""
        return not self._pushes

    def push(self, order: PushOrder, reply: PushReply) -> None:
        """Writes those wanted blocks that are here; `reply` hears when nothing of it is under way any more."""
        key = order.target, order.fetch_id
        if key in self._ended or key in self._pushes:
            reply(FetchEnd(0, f"fetch {order.fetch_id} was given up or asked for before"))
            return
        held = self._hold(order.names)
        push = _Push(held[: order.num_present], held[order.num_present :], reply)
        self._pool.blocks.move(push.before, Hold.LEASED, Hold.RUNNING)
        if not push.block_ids:
            self._release(push)
            self._bury(key)
            reply(FetchEnd(0, "none of the blocks is here any more"))
            return
        self._pushes[key] = push
        remote_ids = order.block_ids[: len(push.block_ids)]
        move = Move(order.target, Direction.WRITE, push.block_ids, remote_ids, digest_every=self._digest_every)
        self._moves.move(move, lambda outcome: self._mailbox.post(partial(self._on_moved, key, outcome)))

    def abandon(self, target: WorkerId, fetch_id: str) -> None:
        """The target does not wait for the answer any more; what is being written is, until it has ended."""
        push = self._pushes.get((target, fetch_id))
        if push is not None and push.hold is Hold.LEASED:
            self._pool.blocks.move(push.block_ids, Hold.LEASED, Hold.QUARANTINED)
            push.hold = Hold.QUARANTINED

    def end(self, target: WorkerId, fetch_id: str, reply: EndReply) -> None:
        """`reply` hears when nothing of a push is under way; a push of that id that comes later is refused."""
        push = self._pushes.get((target, fetch_id))
        if push is None:
            reply(self._bury((target, fetch_id)))
        else:
            push.end_replies.append(reply)

    def _on_moved(self, key: tuple[WorkerId, str], outcome: MoveOutcome) -> None:
        push = self._pushes.pop(key)
        self._release(push)
        way = self._bury(key, way_of(outcome))
        if outcome.error is not None:
            push.reply(FetchEnd(0, outcome.error.message))
        else:
            push.reply(FetchEnd(len(push.block_ids), write_s=outcome.busy_s, digests=outcome.digests))
        for reply in push.end_replies:
            reply(way)

    def _hold(self, names: Sequence[BlockName]) -> list[int]:
        """Leases the blocks of the leading names: of the partition that has most, and then from host memory."""
        blocks = self._pool.blocks
        prefixes = [blocks.find_prefix(names, partition) for partition in range(blocks.num_partitions)]
        block_ids = max(prefixes, key=len)
        for block_id in block_ids:
            blocks.share(block_id, Hold.LEASED)
        return [*block_ids, *self._restored(names[len(block_ids) :])]

    def _release(self, push: _Push) -> None:
        """Lets go of all blocks, the last one first."""
        self._pool.blocks.release(reversed(push.block_ids), push.hold)
        self._pool.blocks.release(reversed(push.before))

    def _restored(self, names: Sequence[BlockName]) -> Iterator[int]:
        """Brings back what follows from host memory, as far as there is room, within the step's budget."""
        blocks, host = self._pool.blocks, self._pool.host
        if host is None:
            return
        host.touch(names)  # lest room is made by dropping them
        for name in names:
            own = blocks.try_allocate(1, Hold.LEASED) if name in host else None
            if own is None:
                return
            if not self._pool.try_restore(name, own[0]):
                blocks.release(own, Hold.LEASED)
                return
            blocks.publish(own[0], name)
            yield own[0]

    def _bury(self, key: tuple[WorkerId, str], way: Way | None = None) -> Way | None:
        """Remembers that a push has ended, and how it went if that was not known before; returns that."""
        way = self._ended[key] = way or self._ended.get(key)
        if len(self._ended) > MAX_TOMBSTONES:
            self._ended.popitem(last=False)
        return way
