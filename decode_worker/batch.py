"""The sequences that generate: what the next step computes of them, and which go when blocks run out."""

from collections.abc import Callable
from collections.abc import Sequence as Seq

from core.clock import Clock
from core.errors import BatonError
from core.events import TokenEvent
from core.fairness import TokenCounters
from decode_worker.book import SequenceBook
from decode_worker.sequence import Sequence
from engine.kv.pool import BlockPool
from engine.plan import SequenceSlice, StepResult
from kvtransfer.port import Outbox
from kvtransfer.states import TargetEvent


class Batch:
    """One token of every running sequence in every step, but of those that stand still in a migration.

    Args:
        pool: where KV lives.
        book: tells routers of what is given back.
        outbox: where tokens for routers go.
        clock: for what comes with first tokens.
        end: hears of every sequence that has ended here, and takes it out of the books.
        counters: hear what is generated for whom.

    Attributes:
        running: by handoff id, in order of joining: the last is the youngest.
        ready: by handoff id, those that hold all their blocks and wait for a place; younger than those running.
    """

    def __init__(
        self,
        pool: BlockPool,
        book: SequenceBook,
        outbox: Outbox,
        clock: Clock,
        end: Callable[[Sequence], None],
        *,
        counters: TokenCounters,
    ) -> None:
        self._pool = pool
        self._book = book
        self._outbox = outbox
        self._counters = counters
        self._clock = clock
        self._end = end
        self.running: dict[str, Sequence] = {}
        self.ready: dict[str, Sequence] = {}

    @property
    def num_context_tokens(self) -> int:
        """Tokens that the next step attends to, summed over running sequences."""
        return sum(sequence.next_start + 1 for sequence in self.running.values())

    def join(self, sequence: Sequence) -> None:
        """Runs a sequence from the next step on."""
        self.running[sequence.handoff_id] = sequence

    def wait(self, sequence: Sequence) -> None:
        """Runs a sequence, which is READY, as soon as there is a place."""
        self.ready[sequence.handoff_id] = sequence

    def fill(self, max_running: int) -> None:
        """Has those that are ready join, first come, first served, as long as fewer than `max_running` run."""
        for sequence in list(self.ready.values()):
            if len(self.running) >= max_running:
                return
            if not sequence.stands_still:
                sequence.move(TargetEvent.JOIN)
                self.join(self.ready.pop(sequence.handoff_id))

    def remove(self, sequence: Sequence) -> None:
        """Computes no more of a sequence; one that is not here is ignored."""
        self.running.pop(sequence.handoff_id, None)
        self.ready.pop(sequence.handoff_id, None)

    def plan(self) -> list[SequenceSlice]:
        """See `DecodeHalf.plan`."""
        for sequence in self._going_on():
            while sequence.handoff_id in self.running and not self._grow(sequence):
                self._preempt(self._youngest_beside(sequence))
        return [sequence.next_slice() for sequence in self._going_on()]

    def apply(self, slices: Seq[SequenceSlice], result: StepResult) -> None:
        """See `DecodeHalf.apply`."""
        now_s = self._clock.now_s()
        for decoded in slices:
            sequence = self.running[decoded.sequence_id]
            token_id = result.tokens[decoded.sequence_id]
            position = sequence.next_position
            sequence.append(token_id)
            self._counters.serve(sequence.work.tenant, num_answer_tokens=1)
            sequence.blocks.publish(sequence.next_start)
            reason = sequence.work.finish_reason(token_id, len(sequence.tokens))
            logprobs = result.logprobs.get(decoded.sequence_id)
            timing = sequence.take_timing(now_s)
            event = TokenEvent(sequence.handoff_id, position, token_id, reason, logprobs, timing=timing)
            self._outbox.token(sequence.router_id, event)
            if reason is not None:
                self._end(sequence)

    def fail(self, slices: Seq[SequenceSlice], error: BatonError) -> None:
        """See `DecodeHalf.fail`."""
        for decoded in slices:
            sequence = self.running[decoded.sequence_id]
            self._book.give_back(sequence, error.code, error.message, retryable=False)
            self._end(sequence)

    # --- inside

    def _going_on(self) -> list[Sequence]:
        return [sequence for sequence in self.running.values() if not sequence.stands_still]

    def _grow(self, sequence: Sequence) -> bool:
        """Makes room for the sequence's next token; False when no block is free."""
        table = sequence.blocks
        num_missing = self._pool.layout.blocks_for(sequence.next_start + 1) - len(table.block_ids)
        return num_missing <= 0 or table.try_grow(num_missing)  # fewer than none: it came here with room to grow

    def _youngest_beside(self, sequence: Sequence) -> Sequence:
        """Of the sequences that compete with this one for blocks, itself included, the last that came.

        Those that stand still are not among them: their targets may run them already. Nor are others whose blocks
        are being read: ending them would free none.
        """
        partition_of = self._pool.blocks.partition_of
        here = partition_of(sequence.blocks.block_ids[0])
        youngest_first = (*reversed(self.ready.values()), *reversed(self.running.values()))
        return next(
            s
            for s in youngest_first
            if s is sequence or (not s.is_being_read and partition_of(s.blocks.block_ids[0]) == here)
        )

    def _preempt(self, sequence: Sequence) -> None:
        message = f"out of KV blocks ({self._pool.num_blocks} in all) with {len(self.running)} sequences running"
        self._book.give_back(sequence, "preempted", message)
        self._end(sequence)
