"""The token half of a worker: reserving blocks, taking over sequences, continuous batching, preemption.

Plain state driven by method calls from the worker's loop; it neither waits nor talks to anybody but its ports.
"""

from collections import OrderedDict
from collections.abc import Callable
from collections.abc import Sequence as Seq

from core.clock import Clock
from core.deadlines import Deadlines
from core.errors import BatonError, CancelledRequestError, CorruptKvError, HandoffError, StaleEpochError
from core.events import ReturnedWork, TokenEvent
from core.ids import WorkerId
from core.request import Assignment
from core.transfers import PairStats, pair_of
from decode_worker.sequence import Sequence
from engine.kv.accounting import Hold
from engine.kv.block_table import BlockTable
from engine.kv.pool import BlockPool
from engine.plan import SequenceSlice, StepResult
from kvtransfer.port import BeginReply, CommitReply, Outbox, RenewReply, Reservation
from kvtransfer.states import TargetEvent, TargetState

LEASE_S = 30.0  # from the reservation, or the last renewal; sources renew every 10 s
ANNOUNCED_S = 600.0  # until the source begins: a long queue there, which the router's own deadline is to bound
BEGUN_S = 30.0  # until the router says what a source has begun: it told both at once
MAX_TOMBSTONES = 4096  # ended handoffs remembered, so that a late begin is refused; far more than can be in flight


class DecodeHalf:
    """Runs all sequences it has taken over in every step.

    Blocks of a prompt that the prefix cache has need not come from the source. Those that came join the cache with
    the commit, generated ones as they fill up, so that whatever continues the sequence here finds them.

    Args:
        pool: where KV lives; this half allocates and frees its sequences' blocks.
        outbox: where tokens and returned work for routers go.
        clock: for deadlines.
        max_num_seqs: sequences receiving or running at once.

    Attributes:
        num_received: sequences taken over since the start.
        pairs: expired leases and failures by source; of each worker's latest incarnation only.
    """

    def __init__(self, pool: BlockPool, outbox: Outbox, clock: Clock, max_num_seqs: int) -> None:
        self._pool = pool
        self._outbox = outbox
        self._clock = clock
        self._max_num_seqs = max_num_seqs
        self._sequences: dict[str, Sequence] = {}
        self._running: dict[str, Sequence] = {}  # in order of joining: the last is the youngest
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._deadlines = Deadlines()
        self._gone: dict[str, WorkerId] = {}  # by name, the latest incarnation known to be dead
        self.num_received = 0
        self.pairs: dict[WorkerId, PairStats] = {}

    @property
    def num_running(self) -> int:
        """Sequences that are generating."""
        return len(self._running)

    @property
    def num_context_tokens(self) -> int:
        """Tokens that the next step attends to, summed over running sequences."""
        return sum(sequence.next_start + 1 for sequence in self._running.values())

    @property
    def num_receiving(self) -> int:
        """Handoffs whose blocks may be written by their source now, abandoned ones included."""
        states = (TargetState.RECEIVING, TargetState.QUARANTINED)
        return sum(s.state in states for s in self._sequences.values())

    @property
    def num_incoming(self) -> int:
        """Handoffs announced or under way."""
        return len(self._sequences) - len(self._running)

    # --- orders from routers

    def assign(self, router_id: str, assignment: Assignment) -> None:
        """Announces a handoff; blocks are reserved when its source begins. A second announcement changes nothing."""
        handoff_id = assignment.handoff_id
        if handoff_id in self._ended:
            return  # the source was faster: its first token ended the answer
        sequence = self._sequences.setdefault(handoff_id, Sequence(handoff_id, TargetState.ANNOUNCED))
        if sequence.assignment is not None:
            return
        sequence.router_id, sequence.assignment = router_id, assignment
        sequence.table = BlockTable(self._pool, assignment.cache_salt, assignment.prompt)
        if sequence.state is TargetState.BEGUN:
            self._open(sequence, TargetEvent.ASSIGN)
        elif self._is_gone(assignment.prefill.worker):
            self._lose_source(sequence)
        else:
            self._deadlines.set(handoff_id, self._clock.now_s() + ANNOUNCED_S)

    def cancel(self, handoff_id: str) -> None:
        """Ends a sequence in any state and frees its blocks as soon as nobody can write them."""
        if sequence := self._sequences.get(handoff_id):
            self._abandon(sequence)

    def drop_router(self, router_id: str) -> None:
        """Cancels everything a router assigned: it is gone."""
        for sequence in [s for s in self._sequences.values() if s.router_id == router_id]:
            self._abandon(sequence)

    # --- orders from sources

    def begin(self, handoff_id: str, source: WorkerId, reply: BeginReply) -> None:
        """A source wants blocks. `reply` is called when they are reserved, or when they never will be."""
        if self._is_gone(source):
            reply(StaleEpochError(f"worker {source} is known to be dead; its handoff {handoff_id} is refused"))
            return
        if handoff_id in self._ended:
            reply(CancelledRequestError(f"handoff {handoff_id} has ended here"))
            return
        sequence = self._sequences.setdefault(handoff_id, Sequence(handoff_id, TargetState.BEGUN))
        if sequence.source is not None:
            reply(HandoffError(f"handoff {handoff_id} was begun twice; the second is ignored"))
            return
        sequence.source, sequence.begin_reply = source, reply
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
        self, handoff_id: str, source: WorkerId, first_token: int, num_blocks: int, reply: CommitReply
    ) -> None:
        """A source has written everything: the sequence joins the batch at the next step."""
        sequence = self._committing(handoff_id, source, reply)
        if sequence is None:
            return
        if num_blocks != (num_reserved := len(sequence.blocks.held_as(Hold.LEASED))):
            self._return(sequence, "handoff_incomplete", f"{num_blocks} of {num_reserved} blocks came")
            self.source_ended(handoff_id, source)
            reply(HandoffError(f"handoff {handoff_id}: {num_reserved} blocks expected, {num_blocks} came"))
        else:
            self._join(sequence, first_token)
            reply(None)

    def reject(self, handoff_id: str, source: WorkerId, reply: CommitReply) -> None:
        """A source has written everything, but something else is there: `reply` gets CorruptKvError."""
        sequence = self._committing(handoff_id, source, reply)
        if sequence is None:
            return
        error = CorruptKvError(f"handoff {handoff_id}: KV from {source} has other checksums here than it left with")
        pair_of(self.pairs, source).fail(error.code)
        self._return(sequence, error.code, error.message)
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
            self._bury(handoff_id)
        elif sequence.state is not TargetState.RUNNING and sequence.source in (source, None):
            sequence.move(TargetEvent.SOURCE_ENDED)
            self._forget(sequence)

    def worker_gone(self, worker: WorkerId) -> None:
        """This incarnation of a worker and all earlier ones are dead: nothing of theirs is written any more.

        What they were to send goes back, and what was quarantined for them is free. Harmless the second time.
        """
        if not self._is_gone(worker):
            self._gone[worker.name] = worker
        for sequence in list(self._sequences.values()):
            source = sequence.expected_source
            if source is not None and worker.outlasts(source) and sequence.state is not TargetState.RUNNING:
                self._lose_source(sequence)

    def worker_superseded(self, worker: WorkerId) -> None:
        """A newer incarnation of a worker exists, so all earlier ones are dead."""
        self.worker_gone(WorkerId(worker.name, worker.incarnation - 1))

    # --- the engine's step

    def admit(self) -> None:
        """Reserves blocks for handoffs that wait, first come, first served, while there is room.

        Room means a slot in the batch, and blocks left over for every running sequence to grow by one.
        """
        active = self.num_running + self.num_receiving
        for sequence in list(self._sequences.values()):
            if sequence.state is not TargetState.OPENING:
                continue
            if active >= self._max_num_seqs or not self._try_reserve(sequence):
                return
            active += 1

    def plan(self) -> list[SequenceSlice]:
        """One token of every running sequence; where blocks run out the youngest there go back to their routers."""
        for sequence in list(self._running.values()):
            while sequence.handoff_id in self._running and not self._grow(sequence):
                self._preempt(self._youngest_beside(sequence))
        return [sequence.next_slice() for sequence in self._running.values()]

    def apply(self, slices: Seq[SequenceSlice], result: StepResult) -> None:
        """Takes in what a step computed for the slices of `plan`."""
        for decoded in slices:
            sequence = self._running[decoded.sequence_id]
            token_id = result.tokens[decoded.sequence_id]
            position = sequence.next_position
            sequence.append(token_id)
            sequence.blocks.publish(sequence.next_start)
            reason = sequence.work.finish_reason(token_id, len(sequence.tokens))
            logprobs = result.logprobs.get(decoded.sequence_id)
            event = TokenEvent(sequence.handoff_id, position, token_id, reason, logprobs)
            self._outbox.token(sequence.router_id, event)
            if reason is not None:
                self._end(sequence)

    def fail(self, slices: Seq[SequenceSlice], error: BatonError) -> None:
        """Gives back the sequences of a step that failed; they are not tried again."""
        for decoded in slices:
            sequence = self._running[decoded.sequence_id]
            self._return(sequence, error.code, error.message, retryable=False)
            self._end(sequence)

    def expire(self) -> None:
        """Ends what has waited for a source or a router for too long."""
        for handoff_id in self._deadlines.take_due(self._clock.now_s()):
            sequence = self._sequences[handoff_id]
            source = sequence.expected_source
            assert source is not None, f"{handoff_id} is here and nobody has said who sends it"
            if sequence.state is TargetState.ANNOUNCED:
                self._return(sequence, "begin_overdue", f"worker {source} has not begun within {ANNOUNCED_S:g} s")
            elif sequence.state is TargetState.BEGUN:
                message = f"no router has announced handoff {handoff_id} within {BEGUN_S:g} s"
                self._reply(sequence, HandoffError(message))
            else:
                self._return(sequence, "lease_expired", f"worker {source} was silent for {LEASE_S:g} s")
                pair_of(self.pairs, source).num_expired_leases += 1
            self._abandon(sequence)

    # --- inside

    def _is_gone(self, worker: WorkerId) -> bool:
        gone = self._gone.get(worker.name)
        return gone is not None and gone.outlasts(worker)

    def _open(self, sequence: Sequence, event: TargetEvent) -> None:
        """Router and source have both spoken; the source's call bounds the wait for room."""
        sequence.move(event)
        self._deadlines.drop(sequence.handoff_id)

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
            self._return(sequence, "source_lost", message)
        sequence.move(TargetEvent.SOURCE_ENDED)
        self._forget(sequence)

    def _try_reserve(self, sequence: Sequence) -> bool:
        """Leases blocks for what the cache does not have of a prompt; False when there is no room."""
        num_tokens = len(sequence.work.prompt)
        table, num_blocks = sequence.blocks, self._pool.layout.blocks_for(num_tokens)
        num_full = num_tokens // self._pool.layout.block_tokens
        if not table.try_reserve(num_blocks, max_shared=num_full, hold=Hold.LEASED, spare=self.num_running):
            return False
        num_present = table.adopt(num_full)
        self._deadlines.set(sequence.handoff_id, self._clock.now_s() + LEASE_S)
        sequence.move(TargetEvent.RESERVE)
        block_tokens = self._pool.layout.block_tokens
        self._reply(sequence, Reservation(num_present, table.held_as(Hold.LEASED), block_tokens))
        return True

    def _join(self, sequence: Sequence, first_token: int) -> None:
        sequence.move(TargetEvent.COMMIT)
        self._deadlines.drop(sequence.handoff_id)
        sequence.blocks.move(Hold.LEASED, Hold.RUNNING)
        sequence.blocks.publish(len(sequence.work.prompt))
        sequence.start(first_token)
        self._running[sequence.handoff_id] = sequence
        self.num_received += 1

    def _grow(self, sequence: Sequence) -> bool:
        """Makes room for the sequence's next token; False when no block is free."""
        table = sequence.blocks
        return table.try_grow(self._pool.layout.blocks_for(sequence.next_start + 1) - len(table.block_ids))

    def _youngest_beside(self, sequence: Sequence) -> Sequence:
        """Of the sequences that compete with this one for blocks, itself included, the last that joined."""
        partition_of = self._pool.blocks.partition_of
        here = partition_of(sequence.blocks.block_ids[0])
        return next(s for s in reversed(self._running.values()) if partition_of(s.blocks.block_ids[0]) == here)

    def _preempt(self, sequence: Sequence) -> None:
        message = f"out of KV blocks ({self._pool.num_blocks} in all) with {self.num_running} sequences running"
        self._return(sequence, "preempted", message)
        self._end(sequence)

    def _end(self, sequence: Sequence) -> None:
        sequence.move(TargetEvent.END)
        self._forget(sequence)

    def _abandon(self, sequence: Sequence) -> None:
        """Ends a sequence from any state. Blocks that the source may still write are quarantined, not freed."""
        if sequence.state is TargetState.QUARANTINED:
            return
        was_receiving = sequence.state is TargetState.RECEIVING
        sequence.move(TargetEvent.ABANDON)
        self._deadlines.drop(sequence.handoff_id)
        self._reply(sequence, CancelledRequestError(f"handoff {sequence.handoff_id} was cancelled"))
        if was_receiving:
            sequence.blocks.move(Hold.LEASED, Hold.QUARANTINED)
        else:
            self._forget(sequence)

    def _forget(self, sequence: Sequence) -> None:
        """The only way out of the books: frees the blocks and remembers that the handoff has ended."""
        self._reply(sequence, CancelledRequestError(f"handoff {sequence.handoff_id} has ended"))
        if sequence.table is not None:
            sequence.table.release()
        self._deadlines.drop(sequence.handoff_id)
        self._running.pop(sequence.handoff_id, None)
        del self._sequences[sequence.handoff_id]
        self._bury(sequence.handoff_id)

    def _bury(self, handoff_id: str) -> None:
        self._ended[handoff_id] = None
        if len(self._ended) > MAX_TOMBSTONES:
            self._ended.popitem(last=False)

    def _reply(self, sequence: Sequence, answer: Reservation | BatonError) -> None:
        if sequence.begin_reply is not None:
            sequence.begin_reply(answer)
            sequence.begin_reply = None

    def _return(self, sequence: Sequence, code: str, message: str, *, retryable: bool = True) -> None:
        if sequence.assignment is not None:
            self._outbox.returned(sequence.router_id, ReturnedWork(sequence.handoff_id, code, message, retryable))
