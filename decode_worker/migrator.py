"""Moves running sequences to other decode workers while they generate. The sending end; the other is the half's.

A migration is a handoff of a sequence that goes on meanwhile. Its full blocks are final and are copied while it
generates; then it stands still for the rest and the commit, which carries all its tokens so far:

    state of the handoff    the sequence      its blocks
    NEW, OPENING            generates         running
    OPEN                    generates         those being copied leased; all full, none is written any more
    COMMITTING              stands still      all copied ones leased, the last one too
    DRAINING                generates         leased until the last write has ended
    DRAINING                has ended         quarantined until the last write has ended, then free
    CLOSED                  generates         running

Until the commit is ordered the target cannot run the sequence, and whatever goes wrong it goes on here at the next
step. From then on nothing of it is computed here, unless the target has said that it does not run it. So at no time
two workers generate it, and no position of the answer is generated twice.

Every order to migrate is answered once: the sequence is given back as `migrated` or `migration_unknown`, or the
attempt that was to go on with it is, and says why.
"""

from collections.abc import Callable, Container
from collections.abc import Sequence as Seq

from core.clock import Clock
from core.errors import BatonError, HandoffError, StalledTransferError, UnknownOutcomeError
from core.events import MIGRATED, ReturnedWork
from core.ids import WorkerEndpoint, WorkerId
from core.transfers import PairStats
from decode_worker.migration import Migration, MigrationStats, num_wanted
from decode_worker.sequence import Sequence
from engine.kv.accounting import Hold
from engine.kv.pool import BlockPool
from kvtransfer.move import MoveOutcome
from kvtransfer.outgoing import Outgoing
from kvtransfer.port import LEASE_LOST, TARGET_LOST, HandoffPort, Outbox, Reservation
from kvtransfer.sender import WRITE_TIMEOUT_S, HandoffSender
from kvtransfer.states import SourceState, TargetState

# Each takes a few steps of either worker, however little there is to copy: many at once are through sooner. They hold
# blocks at their targets meanwhile, and share a link.
MAX_UNDER_WAY = 16
MAX_STANDING_STILL = 8  # so many may have to be placed again when a target dies just then
# So little is copied in a few milliseconds, less than a step: beforehand, it would only take steps more.
STOP_AND_COPY_BYTES = 4 * 2**20

MIGRATION_UNKNOWN = "migration_unknown"
NOT_RUNNING = "not_running"
ALREADY_MIGRATING = "already_migrating"
OUTGROWN = "outgrown"

BEFORE_COMMIT = frozenset({SourceState.NEW, SourceState.OPENING, SourceState.OPEN})
UNDER_WAY = frozenset({SourceState.OPENING, SourceState.OPEN, SourceState.COMMITTING})


class Migrator:
    """Implements `kvtransfer.port.HandoffSource` for sequences of a decode half.

    Args:
        pool: where the KV is.
        port: carries handoff orders to targets.
        outbox: where returned work for routers goes.
        clock: for deadlines and pauses.
        part: ends a sequence here and gives it back to its router, with a code and a message.
        digest_every: as the prefill half's.
        stop_and_copy_bytes: a sequence that has no more than this left to copy stands still at once.
        pairs: totals by target, shared with whoever else of this worker sends.

    Attributes:
        stats: totals over all targets.
    """

    def __init__(
        self,
        pool: BlockPool,
        port: HandoffPort,
        outbox: Outbox,
        clock: Clock,
        *,
        part: Callable[[Sequence, str, str], None],
        digest_every: int,
        stop_and_copy_bytes: int,
        pairs: dict[WorkerId, PairStats],
    ) -> None:
        self._stop_and_copy_bytes = stop_and_copy_bytes
        self._port = port
        self._outbox = outbox
        self._clock = clock
        self._part = part
        self._sender = HandoffSender(pool, port, clock, digest_every=digest_every, pairs=pairs)
        self._migrations: dict[str, Migration] = {}  # by the id of the attempt that is to go on
        self.stats = MigrationStats()

    @property
    def num_open(self) -> int:
        """Migrations ordered and not answered."""
        return sum(not migration.is_answered for migration in self._migrations.values())

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way, not even a write for a sequence that has ended."""
        return not self._migrations

    # --- orders from routers

    def migrate(self, sequence: Sequence, new_handoff_id: str, target: WorkerEndpoint) -> None:
        """Has a sequence go on at a target, which its router has sent the same work under a new id."""
        handoff_id = sequence.handoff_id
        if new_handoff_id in self._migrations:
            return  # the order came twice
        if target.worker == sequence.work.decode.worker:
            message = f"handoff {handoff_id} runs on {target.worker} already"
            self._outbox.returned(sequence.router_id, ReturnedWork(new_handoff_id, NOT_RUNNING, message))
        elif sequence.state not in {TargetState.READY, TargetState.RUNNING}:
            message = f"handoff {handoff_id} is {sequence.state.name.lower()} and not running"
            self.refuse(sequence.router_id, new_handoff_id, target, NOT_RUNNING, message)
        elif sequence.outgoing is not None:
            message = f"handoff {handoff_id} is on its way to {sequence.outgoing.target.worker}"
            self.refuse(sequence.router_id, new_handoff_id, target, ALREADY_MIGRATING, message)
        else:
            sequence.outgoing = Outgoing(new_handoff_id, target, sequence.blocks, num_wanted(sequence))
            self._migrations[new_handoff_id] = Migration(sequence, sequence.outgoing)

    def refuse(self, router_id: str, new_handoff_id: str, target: WorkerEndpoint, code: str, message: str) -> None:
        """Nothing is going to be sent: router and target need not wait for it."""
        self._outbox.returned(router_id, ReturnedWork(new_handoff_id, code, message))
        self._port.abort(new_handoff_id, target)

    def cancel(self, new_handoff_id: str) -> None:
        """Has a sequence stay, unless its target may run it already. Unknown ids are ignored."""
        migration = self._migrations.get(new_handoff_id)
        if migration is not None and migration.handoff.state in BEFORE_COMMIT:
            migration.is_answered = True
            self._abandon(migration)

    # --- from the half

    def worker_gone(self, worker: WorkerId) -> None:
        """This incarnation of a worker and all earlier ones are dead: what was to go there stays.

        Sequences whose commit has been ordered wait for its answer, which is not long in coming: the port knows too.
        """
        for migration in self._in_states(BEFORE_COMMIT):
            target = migration.handoff.target.worker
            if worker.outlasts(target):
                self._fail(migration, TARGET_LOST, f"worker {target} died before it had taken over")

    def leave(self, sequence: Sequence) -> bool:
        """A sequence ends here, and its migration with it.

        Returns:
            Whether writes may still read its blocks: these are quarantined, and freed here when the last has ended.
        """
        if sequence.outgoing is None:
            return False
        migration = self._migrations[sequence.outgoing.handoff_id]
        if migration.handoff.state is not SourceState.DRAINING:
            self._answer(migration, NOT_RUNNING, f"handoff {sequence.handoff_id} ended before it had moved")
            self._abandon(migration)
        if migration.handoff.state is not SourceState.DRAINING:
            return False
        migration.has_ended_here = True
        sequence.blocks.move(Hold.LEASED, Hold.QUARANTINED)
        return True

    def advance(self) -> None:
        """Before each step is planned: begins what waits, sends what has become final, stops what is ready to go."""
        num_places = MAX_UNDER_WAY - len(self._in_states(UNDER_WAY))
        for migration in self._in_states({SourceState.NEW})[: max(0, num_places)]:
            migration.handoff.num_tokens = num_wanted(migration.sequence)
            self._sender.begin(migration.handoff, is_running=True)
        for migration in self._in_states({SourceState.OPEN}):
            self._push(migration)

    def expire(self) -> None:
        """Gives up migrations of whose writes and commit nothing has ended for too long."""
        for handoff_id in self._sender.take_overdue():
            migration = self._migrations[handoff_id]
            target = migration.handoff.target.worker
            message = f"moving KV to {target} took over {WRITE_TIMEOUT_S:g} s; it may be stopped"
            if migration.handoff.state is SourceState.COMMITTING:
                self._lose_track(migration, message)
            else:
                self._fail(migration, StalledTransferError.code, message)

    def renew_leases(self) -> None:
        """Tells targets now and then which migrations are alive; see `PrefillHalf.renew_leases`."""
        self._sender.renew_leases(migration.handoff for migration in self._migrations.values())

    # --- answers from the target (HandoffSource)

    def on_begun(self, handoff_id: str, reserved: Reservation) -> None:
        """The target has reserved blocks; what is final leaves before the next step."""
        migration = self._migrations.get(handoff_id)
        if migration is None or migration.handoff.state is not SourceState.OPENING:
            return  # abandoned meanwhile; the abort is on its way to the target
        try:
            self._sender.open(migration.handoff, reserved)
        except HandoffError as error:
            self._fail(migration, error.code, error.message)

    def on_begin_refused(self, handoff_id: str, error: BatonError) -> None:
        """The target has no room, or does not know of the sequence: it stays."""
        migration = self._migrations.get(handoff_id)
        if migration is not None and migration.handoff.state is SourceState.OPENING:
            self._fail(migration, error.code, error.message)

    def on_written(self, handoff_id: str, write_id: int, outcome: MoveOutcome, ended_s: float) -> None:
        """A write has ended. When it failed the sequence stays; one that stands still hears that as the answer."""
        migration = self._migrations[handoff_id]
        self._sender.on_written(migration.handoff, write_id, outcome, ended_s)
        if migration.handoff.state is SourceState.DRAINING:
            if self._sender.end_draining(migration.handoff):
                self._close(migration)
        elif migration.handoff.state is SourceState.OPEN and outcome.error is not None:
            self._fail(migration, outcome.error.code, outcome.error.message)

    def on_finished(self, handoff_id: str, error: BatonError | None, acknowledged_s: float) -> None:
        """The target runs the sequence, or never will, or nobody knows."""
        migration = self._migrations[handoff_id]
        handoff = migration.handoff
        self._sender.on_finished(handoff, error, acknowledged_s)
        if migration.has_ended_here:
            self._close(migration)
            return
        self.stats.paused(acknowledged_s - handoff.computed_s)
        if error is None:
            self._close(migration)
            self.stats.num_sent += 1
            self._part(migration.sequence, MIGRATED, f"it goes on at {handoff.target.worker} as {handoff_id}")
        elif isinstance(error, UnknownOutcomeError):
            self._lose_track(migration, error.message)
        else:
            self._fail(migration, error.code, error.message)

    def on_leases_lost(self, handoff_ids: Seq[str]) -> None:
        """Targets no longer keep blocks for these: they stay, but for those whose commit will be answered."""
        for handoff_id in handoff_ids:
            migration = self._migrations.get(handoff_id)
            if migration is not None and migration.handoff.state is SourceState.OPEN:
                target = migration.handoff.target.worker
                self._fail(migration, LEASE_LOST, f"worker {target} has let go of the blocks it reserved")

    # --- inside

    def _in_states(self, states: Container[SourceState]) -> list[Migration]:
        """In the order of their orders."""
        return [migration for migration in self._migrations.values() if migration.handoff.state in states]

    def _push(self, migration: Migration) -> None:
        """Sends what is final. The sequence stops when little of it has not arrived, or its room there is used up."""
        handoff, num_final = migration.handoff, migration.sequence.next_start
        num_reserved = handoff.target_blocks.num_blocks * handoff.target_blocks.block_tokens
        num_standing_still = len(self._in_states({SourceState.COMMITTING}))
        is_ready = self._sender.has_sent(handoff, num_final) or self._is_little_left(handoff, num_final)
        is_next = is_ready and num_standing_still < MAX_STANDING_STILL
        if num_final > num_reserved:
            target = handoff.target.worker
            self._fail(
                migration, OUTGROWN, f"{num_final} tokens are more than {target} had room for when it answered"
            )
        elif is_next or num_final + 1 >= num_reserved:
            handoff.computed_s = self._clock.now_s()
            self._sender.finish(handoff, num_final, migration.sequence.tokens)
        else:
            self._sender.send(handoff, num_final)

    def _is_little_left(self, handoff: Outgoing, num_final: int) -> bool:
        return (
            not handoff.open_writes and self._sender.num_bytes_left(handoff, num_final) <= self._stop_and_copy_bytes
        )

    def _fail(self, migration: Migration, code: str, message: str) -> None:
        """The sequence stays, and goes on with the next step."""
        self._count_failure(migration, code)
        self._answer(migration, code, message)
        self._abandon(migration)

    def _lose_track(self, migration: Migration, message: str) -> None:
        """Nobody knows whether the target has heard the commit.

        It may generate already, so this worker must not. Nor can it stand still until that is known, which may be
        for ever. So the sequence ends here: its router places it again behind the tokens it has, of which none is
        missing, whether or not the target has added some; and ends the target's attempt, which may have them still to
        say.
        """
        self._count_failure(migration, UnknownOutcomeError.code)
        migration.is_answered = True
        if migration.handoff.state is SourceState.CLOSED:
            self._close(migration)
        self._part(migration.sequence, MIGRATION_UNKNOWN, message)

    def _count_failure(self, migration: Migration, code: str) -> None:
        self.stats.num_failed += 1
        if migration.handoff.pair is not None:
            migration.handoff.pair.fail(code)

    def _answer(self, migration: Migration, code: str, message: str) -> None:
        """Gives the attempt back that was to go on."""
        if not migration.is_answered:
            migration.is_answered = True
            work = ReturnedWork(migration.handoff.handoff_id, code, message)
            self._outbox.returned(migration.sequence.router_id, work)

    def _abandon(self, migration: Migration) -> None:
        """The handoff goes no further. While a write may read the blocks, they stay leased."""
        handoff = migration.handoff
        if handoff.state is SourceState.NEW:
            self._port.abort(handoff.handoff_id, handoff.target)  # its router has announced it there
        if handoff.state is SourceState.CLOSED or self._sender.abandon(handoff):
            self._close(migration)

    def _close(self, migration: Migration) -> None:
        """Nothing reads the blocks any more."""
        del self._migrations[migration.handoff.handoff_id]
        if migration.has_ended_here:
            migration.sequence.blocks.release()
        else:
            migration.sequence.blocks.move(Hold.LEASED, Hold.RUNNING)
            migration.sequence.outgoing = None
