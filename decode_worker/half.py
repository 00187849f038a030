"""The token half of a worker: reserving blocks, taking over sequences, continuous batching, preemption.

Plain state driven by method calls from the worker's loop; it neither waits nor talks to anybody but its ports.
"""

from collections import OrderedDict
from collections.abc import Sequence as Seq

from core.clock import Clock
from core.errors import BatonError, CancelledRequestError, HandoffError
from core.events import ReturnedWork, TokenEvent
from core.ids import WorkerId
from core.request import Assignment
from decode_worker.sequence import Sequence
from engine.kv.accounting import Hold
from engine.kv.block_table import BlockTable
from engine.kv.pool import BlockPool
from engine.plan import SequenceSlice, StepResult
from kvtransfer.port import BeginReply, CommitReply, Outbox, Reservation
from kvtransfer.states import TargetEvent, TargetState

LEASE_S = 120.0  # a source that has neither committed nor aborted by then is treated as gone
MAX_TOMBSTONES = 4096  # ended handoffs remembered, so that a late begin is refused; far more than can be in flight


class DecodeHalf:
    """Runs all sequences it has taken over in every step.

    Blocks of a prompt that the prefix cache has need not come from the source. Those that came join the cache with
    the commit, generated ones as they fill up, so that whatever continues the sequence here finds them.

    Args:
        pool: where KV lives; this half allocates and frees its sequences' blocks.
        outbox: where tokens and returned work for routers go.
        clock: for leases.
        max_num_seqs: sequences receiving or running at once.
    """

    def __init__(self, pool: BlockPool, outbox: Outbox, clock: Clock, max_num_seqs: int) -> None:
        self._pool = pool
        self._outbox = outbox
        self._clock = clock
        self._max_num_seqs = max_num_seqs
        self._sequences: dict[str, Sequence] = {}
        self._running: dict[str, Sequence] = {}  # in order of joining: the last is the youngest
        self._ended: OrderedDict[str, None] = OrderedDict()
        self.num_received = 0

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
            sequence.move(TargetEvent.ASSIGN)

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
        if handoff_id in self._ended:
            reply(CancelledRequestError(f"handoff {handoff_id} has ended here"))
            return
        sequence = self._sequences.setdefault(handoff_id, Sequence(handoff_id, TargetState.BEGUN))
        if sequence.begin_reply is not None or sequence.state not in (TargetState.ANNOUNCED, TargetState.BEGUN):
            reply(HandoffError(f"handoff {handoff_id} was begun twice; the second is ignored"))
            return
        sequence.source, sequence.begin_reply = source, reply
        if sequence.state is TargetState.ANNOUNCED:
            sequence.move(TargetEvent.BEGIN)

    def commit(self, handoff_id: str, first_token: int, num_blocks: int, reply: CommitReply) -> None:
        """A source has written everything: the sequence joins the batch at the next step."""
        sequence = self._sequences.get(handoff_id)
        if sequence is None or sequence.state is not TargetState.RECEIVING:
            self.source_ended(handoff_id)
            reply(CancelledRequestError(f"handoff {handoff_id} is not wanted here any more"))
        elif num_blocks != (num_reserved := len(sequence.blocks.held_as(Hold.LEASED))):
            self._return(sequence, "handoff_incomplete", f"{num_blocks} of {num_reserved} blocks came")
            self.source_ended(handoff_id)
            reply(HandoffError(f"handoff {handoff_id}: {num_reserved} blocks expected, {num_blocks} came"))
        else:
            self._join(sequence, first_token)
            reply(None)

    def source_ended(self, handoff_id: str) -> None:
        """The source writes no more for this handoff and nothing is under way: its blocks can be freed."""
        sequence = self._sequences.get(handoff_id)
        if sequence is None:
            self._bury(handoff_id)
        elif sequence.state is not TargetState.RUNNING:  # a late word of a handoff that is committed says nothing
            sequence.move(TargetEvent.SOURCE_ENDED)
            self._forget(sequence)

    def worker_superseded(self, worker: WorkerId) -> None:
        """A newer incarnation of a source exists, so earlier ones are dead and write no more."""
        self.worker_gone(WorkerId(worker.name, worker.incarnation - 1))

    def worker_gone(self, worker: WorkerId) -> None:
        """A process is dead, and every earlier one of its name: what they were to write here is free. Idempotent."""
        for sequence in list(self._sequences.values()):
            is_from_dead = sequence.source is not None and sequence.source.dies_with(worker)
            if is_from_dead and sequence.state is not TargetState.RUNNING:
                if sequence.state is not TargetState.QUARANTINED:  # given back or cancelled long ago
                    self._return(sequence, "source_lost", f"worker {sequence.source} died before its KV was here")
                self.source_ended(sequence.handoff_id)

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
        """Ends the leases of sources that have not been heard of for too long."""
        now_s = self._clock.now_s()
        for sequence in list(self._sequences.values()):
            if sequence.state is TargetState.RECEIVING and now_s > sequence.deadline_s:
                self._return(sequence, "lease_expired", f"no KV came from {sequence.source} within {LEASE_S:g} s")
                self._abandon(sequence)

    # --- inside

    def _try_reserve(self, sequence: Sequence) -> bool:
        """Leases blocks for what the cache does not have of a prompt; False when there is no room."""
        num_tokens = len(sequence.work.prompt)
        table, num_blocks = sequence.blocks, self._pool.layout.blocks_for(num_tokens)
        num_full = num_tokens // self._pool.layout.block_tokens
        if not table.try_reserve(num_blocks, max_shared=num_full, hold=Hold.LEASED, spare=self.num_running):
            return False
        num_present = table.adopt(num_full)
        sequence.deadline_s = self._clock.now_s() + LEASE_S
        sequence.move(TargetEvent.RESERVE)
        self._reply(sequence, Reservation(num_present, table.held_as(Hold.LEASED)))
        return True

    def _join(self, sequence: Sequence, first_token: int) -> None:
        sequence.move(TargetEvent.COMMIT)
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
