"""What of a sequence's KV is written to its target, when, and how long that takes; for prompts and migrations alike.

Not here: whose turn it is, and what becomes of a sequence whose handoff fails. That is the half's to say.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from core.clock import Clock
from core.deadlines import Deadlines
from core.errors import BatonError, HandoffError
from core.ids import WorkerEndpoint, WorkerId
from core.transfers import PairStats, pair_of
from engine.kv.pool import BlockPool
from kvtransfer.handoff_stats import HandoffStats
from kvtransfer.move import Direction, Move, MoveOutcome
from kvtransfer.outgoing import Outgoing
from kvtransfer.port import HandoffPort, Reservation
from kvtransfer.states import SourceEvent

WRITE_TIMEOUT_S = 30.0  # a 131k-token prompt of a large model moves in seconds; past this the peer is not alive
RENEWAL_S = 10.0  # a target's lease of 30 s outlives two renewals that get lost


class HandoffSender:
    """Posts writes, commits, renewals and aborts of handoffs, and keeps their deadlines and totals.

    Source and target count in blocks of their own size. Until the last token is final, what is sent ends at the end
    of a block of both, that is of the larger one, so that no block is in two writes:

        tokens          0 ........... num_sent ............ end ........ num_final
        source blocks   [    )[    )[ |  )[    )[    )[    )[    )[  ..     leased to the writes that read them
        target blocks   [ present    )[  )[  )[  )[  )[  )[  )              those it has already are never written
                                    |<- skip_tokens

    Only the first write may begin inside a source block: behind what the target has, where its blocks are smaller.
    With equal sizes all borders coincide.

    The blocks that a prompt's last chunk completes are ordered before its step, to leave layer by layer while it
    computes. The last block of a running sequence leaves when it stands still.

    Args:
        pool: where the KV is.
        port: carries the orders.
        clock: for deadlines and times.
        digest_every: see `Move.digest_every`.
        pairs: totals by target, of each worker's latest incarnation only; shared with whoever else sends.

    Attributes:
        stats: totals over all targets, of this sender only.
        pairs: as given.
    """

    def __init__(
        self,
        pool: BlockPool,
        port: HandoffPort,
        clock: Clock,
        *,
        digest_every: int,
        pairs: dict[WorkerId, PairStats],
    ) -> None:
        self._pool = pool
        self._port = port
        self._clock = clock
        self._digest_every = digest_every
        self._block_tokens = pool.layout.block_tokens
        self._deadlines = Deadlines()
        self._renewed_s = clock.now_s()
        self.stats = HandoffStats()
        self.pairs = pairs

    def begin(self, handoff: Outgoing, *, is_running: bool) -> None:
        """Asks the target for blocks: of the prompt, or of a running sequence's `num_tokens`."""
        handoff.pair = pair_of(self.pairs, handoff.target.worker)
        handoff.move(SourceEvent.BEGIN)
        self._port.begin(handoff.handoff_id, handoff.target, handoff.num_tokens if is_running else None)

    def open(self, handoff: Outgoing, reserved: Reservation) -> None:
        """Takes in what the target has reserved.

        Raises:
            HandoffError: that is not what was asked for; nothing has changed.
        """
        self._check(handoff, reserved)
        handoff.reserved = reserved
        handoff.num_sent = reserved.num_present_tokens
        saved_bytes = self._bytes_of(handoff.num_sent)
        self.stats.num_bytes_saved += saved_bytes
        handoff.pair_stats.num_bytes_saved += saved_bytes
        handoff.move(SourceEvent.READY)

    def send(self, handoff: Outgoing, num_final: int) -> None:
        """Posts a write of what has become final; while one is in flight, it goes out together with the next."""
        if not handoff.open_writes:
            self._write(handoff, self._num_ready(handoff, num_final))

    def has_sent(self, handoff: Outgoing, num_final: int) -> bool:
        """Whether all that `send` could send has arrived."""
        return not handoff.open_writes and handoff.num_sent >= self._num_ready(handoff, num_final)

    def num_bytes_left(self, handoff: Outgoing, num_final: int) -> int:
        """Bytes of what is final and has not been posted."""
        return self._bytes_of(max(0, num_final - handoff.num_sent))

    def send_with_step(self, handoff: Outgoing, num_final: int, step: int) -> None:
        """An engine step computes the rest: it leaves as the layers end, and what is final already leaves at once."""
        self._write(handoff, self._num_ready(handoff, num_final))
        self._write(handoff, handoff.num_tokens, final_after_step=step)

    def finish(self, handoff: Outgoing, num_final: int, token_ids: Sequence[int]) -> None:
        """Posts a write of the rest, and the commit behind it.

        Args:
            handoff: open; nothing of the sequence is computed any more.
            num_final: tokens whose KV there is.
            token_ids: the answer's, from the first one of this attempt to the one whose KV the target computes next.
        """
        self._write(handoff, num_final)
        handoff.move(SourceEvent.COMMIT)
        handoff.is_finishing = True
        self._extend(handoff)
        reserved = handoff.target_blocks
        num_blocks = -(-num_final // reserved.block_tokens) - reserved.num_present
        self._port.finish(handoff.handoff_id, handoff.target, tuple(token_ids), num_blocks)

    def abandon(self, handoff: Outgoing) -> bool:
        """Gives a handoff up, in any state but DRAINING and CLOSED.

        Returns:
            Whether it is CLOSED, and the target told if it had been asked for blocks. Else it is DRAINING: a write
            may still read the blocks, and `end_draining` closes it later.
        """
        self._deadlines.drop(handoff.handoff_id)
        if handoff.is_in_flight:
            handoff.move(SourceEvent.ABANDON_IN_FLIGHT)
            return False
        was_begun = handoff.is_begun
        handoff.move(SourceEvent.ABANDON)
        if was_begun:
            self._port.abort(handoff.handoff_id, handoff.target)
        return True

    def end_draining(self, handoff: Outgoing) -> bool:
        """Closes a draining handoff and tells the target, if nothing of it is in flight any more; whether it did."""
        if handoff.is_in_flight:
            return False
        handoff.move(SourceEvent.END)
        self._port.abort(handoff.handoff_id, handoff.target)
        return True

    def renew_leases(self, handoffs: Iterable[Outgoing]) -> None:
        """Tells each target, every `RENEWAL_S` in one message, which of its handoffs are alive."""
        if (now_s := self._clock.now_s()) - self._renewed_s < RENEWAL_S:
            return
        self._renewed_s = now_s
        by_target: defaultdict[WorkerEndpoint, list[str]] = defaultdict(list)
        for handoff in handoffs:
            if handoff.is_leasing:
                by_target[handoff.target].append(handoff.handoff_id)
        for target, handoff_ids in by_target.items():
            self._port.renew(target, handoff_ids)

    def take_overdue(self) -> list[str]:
        """Handoffs of which nothing has ended for `WRITE_TIMEOUT_S` although something is in flight; each once."""
        return self._deadlines.take_due(self._clock.now_s())

    def on_written(self, handoff: Outgoing, write_id: int, outcome: MoveOutcome, ended_s: float) -> None:
        """Counts a write that has ended, well or not."""
        pair = handoff.pair_stats
        handoff.open_writes.remove(write_id)
        handoff.moved_s = max(handoff.moved_s, ended_s)
        handoff.busy_s += outcome.busy_s
        pair.busy_s += outcome.busy_s
        pair.num_bytes += outcome.num_bytes
        pair.num_descriptors += outcome.num_descriptors
        self.stats.write_s += outcome.busy_s
        if handoff.is_leasing and handoff.is_in_flight:
            self._extend(handoff)
        else:
            self._deadlines.drop(handoff.handoff_id)

    def on_finished(self, handoff: Outgoing, error: BatonError | None, acknowledged_s: float) -> None:
        """The commit is answered, and the handoff closed. Counts it; after an error the target is told to let go."""
        handoff.is_finishing = False
        handoff.move(SourceEvent.END)
        self._deadlines.drop(handoff.handoff_id)
        if error is not None:
            self._port.abort(handoff.handoff_id, handoff.target)  # a commit that got lost leaves the target waiting
            return
        pair = handoff.pair_stats
        self.stats.num_sent += 1
        self.stats.exposed_s += acknowledged_s - handoff.computed_s
        pair.num_handoffs += 1
        pair.exposed_s += min(handoff.busy_s, max(0.0, handoff.moved_s - handoff.computed_s))
        pair.acknowledge_s += acknowledged_s - max(handoff.moved_s, handoff.computed_s)

    # --- inside

    def _check(self, handoff: Outgoing, reserved: Reservation) -> None:
        mine, theirs = self._block_tokens, reserved.block_tokens
        if theirs < 1 or (mine % theirs and theirs % mine):
            raise HandoffError(
                f"{handoff.target.worker} has blocks of {theirs} tokens and this worker of {mine}; one must be a "
                "multiple of the other"
            )
        num_blocks = -(-handoff.num_tokens // theirs)
        if reserved.num_blocks != num_blocks:
            counts = f"{reserved.num_blocks} blocks of {theirs} tokens where {num_blocks} were asked for"
            raise HandoffError(f"{handoff.target.worker} reserved {counts}")

    def _num_ready(self, handoff: Outgoing, num_final: int) -> int:
        """Leading tokens whose KV is final and fills blocks of both sides."""
        unit = max(self._block_tokens, handoff.target_blocks.block_tokens)
        return num_final // unit * unit

    def _write(self, handoff: Outgoing, end: int, *, final_after_step: int | None = None) -> None:
        """Posts a write of tokens `[num_sent, end)`, if there are any."""
        start, reserved = handoff.num_sent, handoff.target_blocks
        if start >= end:
            return
        first = start // self._block_tokens
        move = Move(
            peer=handoff.target.worker,
            direction=Direction.WRITE,
            local_ids=handoff.table.lease(first, -(-end // self._block_tokens)),
            remote_ids=reserved.blocks_for(start, end),
            skip_tokens=start - first * self._block_tokens,
            final_after_step=final_after_step,
            digest_every=self._digest_every,
            handoff_id=handoff.handoff_id,
        )
        write_id, handoff.num_writes = handoff.num_writes, handoff.num_writes + 1
        handoff.open_writes.add(write_id)
        handoff.num_sent = end
        self.stats.num_bytes += self._bytes_of(len(move.remote_ids) * reserved.block_tokens)
        self._extend(handoff)
        self._port.write(handoff.handoff_id, handoff.target, write_id, move)

    def _extend(self, handoff: Outgoing) -> None:
        self._deadlines.set(handoff.handoff_id, self._clock.now_s() + WRITE_TIMEOUT_S)

    def _bytes_of(self, num_tokens: int) -> int:
        return num_tokens * self._pool.block_bytes // self._block_tokens
