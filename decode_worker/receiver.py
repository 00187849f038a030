"""The receiving end of handoffs: blocks are reserved, a source writes them, and the sequence joins the batch."""

from collections.abc import Callable
from collections.abc import Sequence as Seq

from core.clock import Clock
from core.deadlines import Deadlines
from core.errors import CancelledRequestError, CorruptKvError, HandoffError, StaleEpochError
from core.fair_line import FairLine
from core.fairness import TokenCounters
from core.ids import WorkerId
from core.request import Assignment
from core.transfers import PairStats, pair_of
from decode_worker.book import SequenceBook
from decode_worker.sequence import Sequence
from engine.kv.accounting import Hold
from engine.kv.block_table import BlockTable
from engine.kv.pool import BlockPool
from kvtransfer.port import BeginReply, CommitReply, RenewReply, Reservation
from kvtransfer.states import TargetEvent, TargetState

LEASE_S = 30.0  # from the reservation, or the last renewal; sources renew every 10 s
ANNOUNCED_S = 600.0  # until the source begins: a long queue there, which the router's own deadline is to bound
BEGUN_S = 30.0  # until the router says what a source has begun: it told both at once

WITH_SOURCE = frozenset(set(TargetState) - {TargetState.READY, TargetState.RUNNING, TargetState.CLOSED})
"""States that end with a word of the source, or with its death."""


class Receiver:
    """Takes sequences over from sources: prompts that these have computed, and sequences that have run there.

    Args:
        book: of all sequences of the half; those in the states `WITH_SOURCE` are this object's.
        pool: where their blocks are.
        clock: for deadlines.
        counters: what is generated here for whom; prompts count when they get room.
        join: gets every sequence that has come, ready to run.

    Attributes:
        num_received: sequences taken over since the start, and ...
        num_migrated_here: ... those of them that had been running elsewhere.
        pairs: expired leases and failures by source; of each worker's latest incarnation only.
    """

    def __init__(
        self,
        book: SequenceBook,
        pool: BlockPool,
        clock: Clock,
        counters: TokenCounters,
        join: Callable[[Sequence], None],
    ) -> None:
        self._book = book
        self._sequences = book.sequences
        self._pool = pool
        self._clock = clock
        self._counters = counters
        self._line: FairLine[Sequence] = FairLine(counters)  # those announced that have not got room
        self._opening: set[str] = set()  # those of them that wait for it, in the state OPENING
        self._hand_on = join
        self._deadlines = Deadlines()
        self._gone: dict[str, WorkerId] = {}  # by name, the latest incarnation known to be dead
        self.num_received = 0
        self.num_migrated_here = 0
        self.pairs: dict[WorkerId, PairStats] = {}

    @property
    def num_receiving(self) -> int:
        """Handoffs whose blocks may be written by their source now, abandoned ones included."""
        states = (TargetState.RECEIVING, TargetState.QUARANTINED)
        return sum(s.state in states for s in self._sequences.values())

    # --- from the half

    def announce(self, router_id: str, assignment: Assignment) -> None:
        """See `DecodeHalf.assign`."""
        handoff_id = assignment.handoff_id
        if handoff_id in self._book.ended:
            return  # the source was faster: its first token ended the answer
        sequence = self._sequences.setdefault(handoff_id, Sequence(handoff_id, TargetState.ANNOUNCED))
        if sequence.assignment is not None:
            return
        sequence.router_id, sequence.assignment = router_id, assignment
        sequence.table = BlockTable(self._pool, assignment.cache_salt, assignment.prompt)
        self._line.add(handoff_id, sequence, assignment.turn)
        if sequence.state is TargetState.BEGUN:
            self._open(sequence, TargetEvent.ASSIGN)
        elif self._is_gone(assignment.prefill.worker):
            self._lose_source(sequence)
        else:
            self._deadlines.set(handoff_id, self._clock.now_s() + ANNOUNCED_S)

    def abandon(self, sequence: Sequence) -> None:
        """Ends a sequence in any of the states `WITH_SOURCE`.

        Blocks that the source may still write are quarantined, not freed.
        """
        if sequence.state is TargetState.QUARANTINED:
            return
        was_receiving = sequence.state is TargetState.RECEIVING
        sequence.move(TargetEvent.ABANDON)
        self._deadlines.drop(sequence.handoff_id)
        self._book.reply(sequence, CancelledRequestError(f"handoff {sequence.handoff_id} was cancelled"))
        if was_receiving:
            sequence.blocks.move(Hold.LEASED, Hold.QUARANTINED)
        else:
            self._forget(sequence)

    def give_up(self, sequence: Sequence, code: str, message: str) -> None:
        """Gives back a sequence in any of the states `WITH_SOURCE`, unless it has been or was cancelled."""
        if sequence.state is not TargetState.QUARANTINED:
            self._book.give_back(sequence, code, message)
            self.abandon(sequence)

    def worker_gone(self, worker: WorkerId) -> None:
        """This incarnation of a worker and all earlier ones are dead: nothing of theirs is written any more.

        What they were to send goes back, and what was quarantined for them is free.
        """
        if not self._is_gone(worker):
            self._gone[worker.name] = worker
        for sequence in list(self._sequences.values()):
            source = sequence.expected_source
            if source is not None and worker.outlasts(source) and sequence.state in WITH_SOURCE:
                self._lose_source(sequence)

    def reserve(self, max_receiving: int, spare: int) -> None:
        """Reserves blocks for handoffs that wait, while there is room for the one whose turn it is.

        As prompts get chunks: by priority, then for the tenant that has been served least, then first come, first
        served.

        Args:
            max_receiving: handoffs whose blocks may be written at once.
            spare: blocks that must be left over.
        """
        num_receiving = self.num_receiving
        while num_receiving < max_receiving and (sequence := self._next_opening()) is not None:
            if not self._try_reserve(sequence, spare):
                return
            num_receiving += 1

    def expire(self) -> None:
        """Ends what has waited for a source or a router for too long."""
        for handoff_id in self._deadlines.take_due(self._clock.now_s()):
            sequence = self._sequences[handoff_id]
            source = sequence.expected_source
            assert source is not None, f"{handoff_id} is here and nobody has said who sends it"
            if sequence.state is TargetState.ANNOUNCED:
                self._book.give_back(
                    sequence, "begin_overdue", f"worker {source} has not begun within {ANNOUNCED_S:g} s"
                )
            elif sequence.state is TargetState.BEGUN:
                message = f"no router has announced handoff {handoff_id} within {BEGUN_S:g} s"
                self._book.reply(sequence, HandoffError(message))
            else:
                self._book.give_back(sequence, "lease_expired", f"worker {source} was silent for {LEASE_S:g} s")
                pair_of(self.pairs, source).num_expired_leases += 1
            self.abandon(sequence)

    # --- orders from sources

    def begin(self, handoff_id: str, source: WorkerId, num_tokens: int | None, reply: BeginReply) -> None:
        """A source wants blocks. `reply` is called when they are reserved, or when they never will be.

        Args:
            handoff_id: the attempt.
            source: who has the KV, or is computing it.
            num_tokens: see `HandoffPort.begin`.
            reply: tells the source.
        """
        if self._is_gone(source):
            reply(StaleEpochError(f"worker {source} is known to be dead; its handoff {handoff_id} is refused"))
            return
        if handoff_id in self._book.ended:
            reply(CancelledRequestError(f"handoff {handoff_id} has ended here"))
            return
        sequence = self._sequences.setdefault(handoff_id, Sequence(handoff_id, TargetState.BEGUN))
        if sequence.source is not None:
            reply(HandoffError(f"handoff {handoff_id} was begun twice; the second is ignored"))
            return
        sequence.source, sequence.num_asked, sequence.begin_reply = source, num_tokens, reply
        if sequence.state is TargetState.ANNOUNCED:
            self._open(sequence, TargetEvent.BEGIN)
        else:
            self._deadlines.set(handoff_id, self._clock.now_s() + BEGUN_S)

    def renew(self, source: WorkerId, handoff_ids: Seq[str], reply: RenewReply) -> None:
        """A source says which of its handoffs are alive; hears of those that have no lease here any more."""
        deadline_s = self._clock.now_s() + LEASE_S
        lost = []
        for handoff_id in handoff_ids:
            sequence = self._sequences.get(handoff_id)
            if sequence is None or sequence.source != source or sequence.state is TargetState.QUARANTINED:
                lost.append(handoff_id)
            elif sequence.state is TargetState.RECEIVING:
                self._deadlines.set(handoff_id, deadline_s)
        reply(lost)

    def commit(
        self, handoff_id: str, source: WorkerId, token_ids: Seq[int], num_blocks: int, reply: CommitReply
    ) -> None:
        """A source has written everything: the sequence joins the batch at the next step.

        Args:
            handoff_id: the attempt.
            source: who has written.
            token_ids: see `HandoffPort.finish`.
            num_blocks: blocks that it has written.
            reply: gets HandoffError when that is not what the sequence needs; it is given back then.
        """
        sequence = self._committing(handoff_id, source, reply)
        if sequence is None:
            return
        if (fault := self._fault(sequence, token_ids, num_blocks)) is not None:
            self._book.give_back(sequence, "handoff_incomplete", fault)
            self.source_ended(handoff_id, source)
            reply(HandoffError(f"handoff {handoff_id}: {fault}"))
        else:
            self._join(sequence, token_ids)
            reply(None)

    def reject(self, handoff_id: str, source: WorkerId, reply: CommitReply) -> None:
        """A source has written everything, but something else is there: `reply` gets CorruptKvError."""
        sequence = self._committing(handoff_id, source, reply)
        if sequence is None:
            return
        error = CorruptKvError(f"handoff {handoff_id}: KV from {source} has other checksums here than it left with")
        pair_of(self.pairs, source).fail(error.code)
        self._book.give_back(sequence, error.code, error.message)
        self.source_ended(handoff_id, source)
        reply(error)

    def is_reserved(
        self, handoff_id: str, source: WorkerId, block_ids: Seq[int], reply: Callable[[bool], None]
    ) -> None:
        """Whether blocks are reserved for a handoff from a source, and it has not been abandoned."""
        sequence = self._sequences.get(handoff_id)
        reply(
            sequence is not None
            and sequence.state is TargetState.RECEIVING
            and sequence.source == source
            and set(block_ids) <= set(sequence.blocks.held_as(Hold.LEASED))
        )

    def source_ended(self, handoff_id: str, source: WorkerId) -> None:
        """A source writes no more for this handoff and nothing is under way: its blocks can be freed.

        A worker that is not the handoff's source says nothing with it.
        """
        sequence = self._sequences.get(handoff_id)
        if sequence is None:
            self._book.bury(handoff_id)
        elif sequence.state in WITH_SOURCE and sequence.source in (source, None):
            sequence.move(TargetEvent.SOURCE_ENDED)
            self._forget(sequence)

    # --- inside

    def _is_gone(self, worker: WorkerId) -> bool:
        gone = self._gone.get(worker.name)
        return gone is not None and gone.outlasts(worker)

    def _open(self, sequence: Sequence, event: TargetEvent) -> None:
        """Router and source have both spoken; the source's call bounds the wait for room."""
        sequence.move(event)
        self._deadlines.drop(sequence.handoff_id)
        self._opening.add(sequence.handoff_id)
        self._counters.enter(sequence.work.tenant)

    def _next_opening(self) -> Sequence | None:
        """Whose turn it is to get room."""
        return self._line.first(lambda sequence: sequence.handoff_id in self._opening) if self._opening else None

    def _leave_line(self, sequence: Sequence) -> None:
        """It waits for room no longer, if it did."""
        self._line.remove(sequence.handoff_id)
        if sequence.handoff_id in self._opening:
            self._opening.remove(sequence.handoff_id)
            self._counters.leave(sequence.work.tenant)

    def _committing(self, handoff_id: str, source: WorkerId, reply: CommitReply) -> Sequence | None:
        """The sequence that a source has written; None if it is not wanted, which the source has been told."""
        sequence = self._sequences.get(handoff_id)
        if sequence is not None and sequence.source not in (source, None):
            reply(StaleEpochError(f"handoff {handoff_id} is from {sequence.source}, not from {source}"))
            return None
        if sequence is None or sequence.state is not TargetState.RECEIVING:
            self.source_ended(handoff_id, source)
            reply(CancelledRequestError(f"handoff {handoff_id} is not wanted here any more"))
            return None
        return sequence

    def _lose_source(self, sequence: Sequence) -> None:
        """Ends a sequence whose source is dead."""
        if sequence.state is not TargetState.QUARANTINED:  # given back or cancelled long ago
            message = f"worker {sequence.expected_source} died before its KV was here"
            self._book.give_back(sequence, "source_lost", message)
        sequence.move(TargetEvent.SOURCE_ENDED)
        self._forget(sequence)

    def _try_reserve(self, sequence: Sequence, spare: int) -> bool:
        """Leases blocks for what the cache does not have of a sequence; False when there is no room."""
        table, num_blocks = sequence.blocks, self._pool.layout.blocks_for(sequence.num_reserved_tokens)
        num_full = len(sequence.work.prompt) // self._pool.layout.block_tokens
        if not table.try_reserve(num_blocks, max_shared=num_full, hold=Hold.LEASED, spare=spare):
            return False
        num_present = table.adopt(num_full)
        self._counters.serve(sequence.work.tenant, num_prompt_tokens=len(sequence.work.prompt))
        self._leave_line(sequence)
        self._deadlines.set(sequence.handoff_id, self._clock.now_s() + LEASE_S)
        sequence.move(TargetEvent.RESERVE)
        block_tokens = self._pool.layout.block_tokens
        self._book.reply(sequence, Reservation(num_present, table.held_as(Hold.LEASED), block_tokens))
        return True

    def _fault(self, sequence: Sequence, token_ids: Seq[int], num_blocks: int) -> str | None:
        """What is wrong with a commit, if anything.

        blocks   0 ...... present ................ covered ........ reserved
                 [ found here   )[ must have come          )[ room to grow )
        """
        if not 0 < len(token_ids) < sequence.work.max_new_tokens:
            return f"{len(token_ids)} tokens came of an answer of {sequence.work.max_new_tokens}"
        num_reserved = len(sequence.blocks.block_ids)
        num_present = num_reserved - len(sequence.blocks.held_as(Hold.LEASED))
        num_covered = self._pool.layout.blocks_for(len(sequence.work.prompt) + len(token_ids) - 1)
        if num_covered > num_reserved:
            return f"the sequence fills {num_covered} blocks and {num_reserved} were asked for"
        if num_blocks != num_covered - num_present:
            return f"{num_covered - num_present} blocks expected, {num_blocks} came"
        return None

    def _join(self, sequence: Sequence, token_ids: Seq[int]) -> None:
        sequence.move(TargetEvent.COMMIT)
        self._deadlines.drop(sequence.handoff_id)
        sequence.blocks.move(Hold.LEASED, Hold.RUNNING)
        sequence.start(token_ids, self._clock.now_s())
        sequence.blocks.publish(sequence.next_start)
        self._hand_on(sequence)
        self.num_received += 1
        self.num_migrated_here += sequence.num_asked is not None

    def _forget(self, sequence: Sequence) -> None:
        """Nobody writes its blocks any more: they are free, and the handoff has ended."""
        self._deadlines.drop(sequence.handoff_id)
        self._leave_line(sequence)
        if sequence.table is not None:
            sequence.table.release()
        self._book.remove(sequence)
