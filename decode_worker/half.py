"""The token half of a worker: taking sequences over, continuous batching, and having them go on elsewhere.

Plain state driven by method calls from the worker's loop; it neither waits nor talks to anybody but its ports.
"""

from collections.abc import Sequence as Seq

from core.clock import Clock
from core.errors import BatonError
from core.fairness import TokenCounters
from core.ids import WorkerEndpoint, WorkerId
from core.request import Assignment
from core.transfers import PairStats
from decode_worker.batch import Batch
from decode_worker.book import SequenceBook
from decode_worker.migrator import NOT_RUNNING, STOP_AND_COPY_BYTES, Migrator
from decode_worker.receiver import WITH_SOURCE, Receiver
from decode_worker.sequence import Sequence
from engine.kv.block_table import BlockTable
from engine.kv.pool import BlockPool
from engine.plan import SequenceSlice, StepResult
from kvtransfer.port import HandoffPort, Outbox
from kvtransfer.states import TargetEvent, TargetState


class DecodeHalf:
    """Runs all sequences it has taken over in every step.

    Blocks of a prompt that the prefix cache has need not come from the source. Those that came join the cache with
    the commit, generated ones as they fill up, so that whatever continues the sequence here finds them.

    Args:
        pool: where KV lives; this half allocates and frees its sequences' blocks.
        port: carries orders to those that sequences migrate to.
        outbox: where tokens and returned work for routers go.
        clock: for deadlines.
        max_num_seqs: sequences receiving or running at once.
        digest_every: checksums travel with every so manyth block that migrates; 0 for none.
        stop_and_copy_bytes: a sequence that has no more than this left to copy stands still at once.
        sent_pairs: totals by target, shared with whoever else of this worker sends.

    Attributes:
        receiver: takes sequences over; hears the orders of sources.
        migrator: moves running ones to other workers; the port's `HandoffSource`.
    """

    def __init__(
        self,
        pool: BlockPool,
        port: HandoffPort,
        outbox: Outbox,
        clock: Clock,
        max_num_seqs: int,
        *,
        digest_every: int = 0,
        stop_and_copy_bytes: int = STOP_AND_COPY_BYTES,
        sent_pairs: dict[WorkerId, PairStats] | None = None,
    ) -> None:
        self._max_num_seqs = max_num_seqs
        self._clock = clock
        self._book = SequenceBook(outbox)
        counters = TokenCounters()
        self._batch = Batch(pool, self._book, outbox, clock, self._end, counters=counters)
        self.receiver = Receiver(self._book, pool, clock, counters, self._batch.join)
        self.migrator = Migrator(
            pool,
            port,
            outbox,
            clock,
            part=self._part,
            digest_every=digest_every,
            stop_and_copy_bytes=stop_and_copy_bytes,
            pairs={} if sent_pairs is None else sent_pairs,
        )

    @property
    def num_running(self) -> int:
        """Sequences that are generating, or stand still for a moment because they are about to leave."""
        return len(self._batch.running)

    @property
    def num_context_tokens(self) -> int:
        """Tokens that the next step attends to, summed over running sequences."""
        return self._batch.num_context_tokens

    @property
    def num_incoming(self) -> int:
        """Handoffs announced or under way, and sequences that wait for a place."""
        return len(self._book.sequences) - self.num_running

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to compute, to receive or to hand on."""
        return not self._book.sequences and self.migrator.is_idle

    # --- orders from routers

    def assign(self, router_id: str, assignment: Assignment) -> None:
        """Announces a handoff; blocks are reserved when its source begins. A second announcement changes nothing."""
        self.receiver.announce(router_id, assignment)

    def take_over(self, router_id: str, assignment: Assignment, table: BlockTable, first_token: int) -> None:
        """Goes on with a prompt that this worker has computed, as soon as the batch has a place.

        Args:
            router_id: who assigned it.
            assignment: which names this worker for both halves.
            table: the prompt's blocks, all of them held as running; this half's from now on.
            first_token: chosen after the prompt; the router has been told.
        """
        handoff_id = assignment.handoff_id
        sequence = Sequence(handoff_id, TargetState.READY, router_id, assignment, table=table)
        sequence.start((first_token,), self._clock.now_s())
        self._book.sequences[handoff_id] = sequence
        self._batch.wait(sequence)

    def migrate(self, router_id: str, handoff_id: str, new_handoff_id: str, target: WorkerEndpoint) -> None:
        """Has a running sequence go on elsewhere; answered as `migrator` says.

        Args:
            router_id: who orders it; the sequence must be one of its own.
            handoff_id: of the attempt that runs here.
            new_handoff_id: of the one that is to go on with it.
            target: who has been sent the same work under the new id, with this worker as its source.
        """
        sequence = self._book.sequences.get(handoff_id)
        if sequence is not None and sequence.router_id == router_id:
            self.migrator.migrate(sequence, new_handoff_id, target)
        else:
            message = f"handoff {handoff_id} of router {router_id} is not here"
            self.migrator.refuse(router_id, new_handoff_id, target, NOT_RUNNING, message)

    def cancel(self, handoff_id: str) -> None:
        """Ends a sequence in any state and frees its blocks as soon as nobody can read or write them.

        With the id of an attempt that was to go on elsewhere the sequence stays here.
        """
        if sequence := self._book.sequences.get(handoff_id):
            self._abandon(sequence)
        else:
            self.migrator.cancel(handoff_id)

    def drop_router(self, router_id: str) -> None:
        """Cancels everything a router assigned: it is gone."""
        for sequence in [s for s in self._book.sequences.values() if s.router_id == router_id]:
            self._abandon(sequence)

    # --- from the worker

    def return_announced(self, code: str, message: str) -> None:
        """Gives back sequences that no source has begun to send."""
        for sequence in list(self._book.sequences.values()):
            if sequence.state is TargetState.ANNOUNCED:
                self.receiver.give_up(sequence, code, message)

    def return_all(self, code: str, message: str) -> None:
        """Gives back all sequences, in whatever state, but those whose target is just taking over: it will answer."""
        for sequence in list(self._book.sequences.values()):
            if sequence.state in WITH_SOURCE:
                self.receiver.give_up(sequence, code, message)
            elif not sequence.stands_still:
                self._part(sequence, code, message)

    def worker_gone(self, worker: WorkerId) -> None:
        """This incarnation of a worker and all earlier ones are dead. Harmless the second time.

        Nothing of theirs is written any more: what they were to send goes back, and what was quarantined for them is
        free. What was to go to them stays here.
        """
        self.receiver.worker_gone(worker)
        self.migrator.worker_gone(worker)

    def expire(self) -> None:
        """Ends what has waited for a source, a router or a target for too long."""
        self.receiver.expire()
        self.migrator.expire()

    def renew_leases(self) -> None:
        """Keeps what targets have reserved for migrations; called as `PrefillHalf.renew_leases`."""
        self.migrator.renew_leases()

    # --- the engine's step

    def admit(self) -> None:
        """Reserves blocks for handoffs that wait, in their turns, while there is room.

        Room means a slot in the batch, and blocks left over for every running sequence to grow by one. Sequences
        that were computed here take their slots first: they have their blocks.
        """
        self._batch.fill(self._max_num_seqs - self.receiver.num_receiving)
        self.receiver.reserve(self._max_num_seqs - self.num_running, spare=self.num_running)

    def plan(self) -> list[SequenceSlice]:
        """One token of every running sequence; where blocks run out the youngest there go back to their routers.

        Those that have been copied to another worker, but for the last of it, stop here.
        """
        self.migrator.advance()
        return self._batch.plan()

    def apply(self, slices: Seq[SequenceSlice], result: StepResult) -> None:
        """Takes in what a step computed for the slices of `plan`."""
        self._batch.apply(slices, result)

    def fail(self, slices: Seq[SequenceSlice], error: BatonError) -> None:
        """Gives back the sequences of a step that failed; they are not tried again."""
        self._batch.fail(slices, error)

    # --- inside

    def _abandon(self, sequence: Sequence) -> None:
        """Ends a sequence from any state; nobody wants it back."""
        if sequence.state in WITH_SOURCE:
            self.receiver.abandon(sequence)
        else:
            sequence.move(TargetEvent.ABANDON)
            self._forget(sequence)

    def _part(self, sequence: Sequence, code: str, message: str) -> None:
        """Gives back a sequence that does not go on here."""
        self._book.give_back(sequence, code, message)
        self._end(sequence)

    def _end(self, sequence: Sequence) -> None:
        sequence.move(TargetEvent.END)
        self._forget(sequence)

    def _forget(self, sequence: Sequence) -> None:
        """Takes one that runs, or was to, out of the books; its blocks are freed when nothing reads them."""
        self._batch.remove(sequence)
        if not self.migrator.leave(sequence):
            sequence.blocks.release()
        self._book.remove(sequence)
