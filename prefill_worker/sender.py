"""What of a prompt's KV is written to its target, when, and how long that takes.

Not here: whose turn it is, and what becomes of a prompt whose handoff fails. That is the half's to say.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable

from core.clock import Clock
from core.deadlines import Deadlines
from core.errors import BatonError, HandoffError
from core.ids import WorkerEndpoint, WorkerId
from core.transfers import PairStats, pair_of
from engine.kv.pool import BlockPool
from kvtransfer.move import Direction, Move, MoveOutcome
from kvtransfer.port import HandoffPort, Reservation
from kvtransfer.states import SourceEvent
from prefill_worker.prompt import Prompt
from prefill_worker.stats import HandoffStats

WRITE_TIMEOUT_S = 30.0  # a 131k-token prompt of a large model moves in seconds; past this the peer is not alive


class HandoffSender:
    """Posts writes, commits and renewals of prompts, and keeps their deadlines and totals.

    Source and target count in blocks of their own size. Until the prompt is computed, what is sent ends at the end of
    a block of both, that is of the larger one, so that no block is in two writes:

        tokens          0 ........... num_sent ............ end ........ num_computed
        source blocks   [    )[    )[ |  )[    )[    )[    )[    )[  ..     leased to the writes that read them
        target blocks   [ present    )[  )[  )[  )[  )[  )[  )              those it has already are never written
                                    |<- skip_tokens

    Only the first write may begin inside a source block: behind what the target has, where its blocks are smaller.
    With equal sizes all borders coincide.

    The blocks that the last chunk completes are ordered before its step, to leave layer by layer while it computes.

    Args:
        pool: where the KV is.
        port: carries the orders.
        clock: for deadlines and times.
        next_step: the number that the engine's next step will have.
        digest_every: see `Move.digest_every`.

    Attributes:
        stats: totals over all targets.
        pairs: totals by target; of each worker's latest incarnation only.
    """

    def __init__(
        self, pool: BlockPool, port: HandoffPort, clock: Clock, next_step: Callable[[], int], digest_every: int
    ) -> None:
        self._pool = pool
        self._port = port
        self._clock = clock
        self._next_step = next_step
        self._digest_every = digest_every
        self._block_tokens = pool.layout.block_tokens
        self._deadlines = Deadlines()
        self.stats = HandoffStats()
        self.pairs: dict[WorkerId, PairStats] = {}

    def begin(self, prompt: Prompt) -> None:
        """Asks the target for blocks."""
        prompt.pair = pair_of(self.pairs, prompt.target.worker)
        prompt.move(SourceEvent.BEGIN)
        self._port.begin(prompt.handoff_id, prompt.target)

    def open(self, prompt: Prompt, reserved: Reservation) -> None:
        """Takes in what the target has reserved.

        Raises:
            HandoffError: that is not what the prompt needs; nothing has changed.
        """
        self._check(prompt, reserved)
        assert prompt.pair is not None, f"{prompt.handoff_id} opens before it has begun"
        prompt.reserved = reserved
        prompt.num_sent = reserved.num_present_tokens
        saved_bytes = self._bytes_of(prompt.num_sent)
        self.stats.num_bytes_saved += saved_bytes
        prompt.pair.num_bytes_saved += saved_bytes
        prompt.move(SourceEvent.READY)

    def send_ready(self, prompt: Prompt) -> None:
        """Posts a write of what has become final, and with the last of it the commit.

        In the middle of a prompt one write is in flight: what gets ready meanwhile goes out together with the next.
        """
        if prompt.first_token is None:
            if not prompt.open_writes:
                self._write(prompt, self._num_ready(prompt))
            return
        assert prompt.reserved is not None, f"{prompt.handoff_id} is open without blocks at its target"
        self._write(prompt, prompt.num_tokens)
        prompt.move(SourceEvent.COMMIT)
        prompt.is_finishing = True
        self._extend(prompt)
        num_blocks = len(prompt.reserved.block_ids)
        self._port.finish(prompt.handoff_id, prompt.target, prompt.first_token, num_blocks)

    def send_with_next_step(self, prompt: Prompt) -> None:
        """The next step computes the rest: it leaves as the layers end, and what is final already leaves at once."""
        self._write(prompt, self._num_ready(prompt))
        self._write(prompt, prompt.num_tokens, final_after_step=self._next_step())

    def renew(self, prompts: Iterable[Prompt]) -> None:
        """Tells each target in one message which of its handoffs are alive."""
        by_target: defaultdict[WorkerEndpoint, list[str]] = defaultdict(list)
        for prompt in prompts:
            if prompt.is_leasing:
                by_target[prompt.target].append(prompt.handoff_id)
        for target, handoff_ids in by_target.items():
            self._port.renew(target, handoff_ids)

    def take_overdue(self) -> list[str]:
        """Handoffs of which nothing has ended for `WRITE_TIMEOUT_S` although something is in flight; each once."""
        return self._deadlines.take_due(self._clock.now_s())

    def on_written(self, prompt: Prompt, write_id: int, outcome: MoveOutcome, ended_s: float) -> None:
        """Counts a write that has ended, well or not."""
        assert prompt.pair is not None, f"{prompt.handoff_id} was written before it had begun"
        prompt.open_writes.remove(write_id)
        prompt.moved_s = max(prompt.moved_s, ended_s)
        prompt.busy_s += outcome.busy_s
        prompt.pair.busy_s += outcome.busy_s
        prompt.pair.num_bytes += outcome.num_bytes
        prompt.pair.num_descriptors += outcome.num_descriptors
        self.stats.write_s += outcome.busy_s
        if prompt.is_leasing and prompt.is_in_flight:
            self._extend(prompt)
        else:
            self._deadlines.drop(prompt.handoff_id)

    def on_finished(self, prompt: Prompt, error: BatonError | None, acknowledged_s: float) -> None:
        """Counts a handoff that the target has taken over, or not."""
        assert prompt.pair is not None, f"{prompt.handoff_id} was finished before it had begun"
        prompt.is_finishing = False
        self._deadlines.drop(prompt.handoff_id)
        if error is not None:
            return
        self.stats.num_sent += 1
        self.stats.exposed_s += acknowledged_s - prompt.computed_s
        prompt.pair.num_handoffs += 1
        prompt.pair.exposed_s += min(prompt.busy_s, max(0.0, prompt.moved_s - prompt.computed_s))
        prompt.pair.acknowledge_s += acknowledged_s - max(prompt.moved_s, prompt.computed_s)

    def let_go(self, prompt: Prompt) -> None:
        """No deadline any more: the handoff is given up, and what is in flight ends by itself."""
        self._deadlines.drop(prompt.handoff_id)

    # --- inside

    def _check(self, prompt: Prompt, reserved: Reservation) -> None:
        mine, theirs = self._block_tokens, reserved.block_tokens
        if theirs < 1 or (mine % theirs and theirs % mine):
            raise HandoffError(
                f"{prompt.target.worker} has blocks of {theirs} tokens and this worker of {mine}; one must be a "
                "multiple of the other"
            )
        num_blocks = -(-prompt.num_tokens // theirs)
        if reserved.num_blocks != num_blocks:
            counts = f"{reserved.num_blocks} blocks of {theirs} tokens for a prompt of {num_blocks}"
            raise HandoffError(f"{prompt.target.worker} reserved {counts}")

    def _num_ready(self, prompt: Prompt) -> int:
        """Leading tokens whose KV is final and fills blocks of both sides."""
        assert prompt.reserved is not None, f"{prompt.handoff_id} is open without blocks at its target"
        unit = max(self._block_tokens, prompt.reserved.block_tokens)
        return prompt.num_computed // unit * unit

    def _write(self, prompt: Prompt, end: int, *, final_after_step: int | None = None) -> None:
        """Posts a write of tokens `[num_sent, end)`, if there are any."""
        start = prompt.num_sent
        if start >= end:
            return
        assert prompt.reserved is not None, f"{prompt.handoff_id} is open without blocks at its target"
        first = start // self._block_tokens
        move = Move(
            peer=prompt.target.worker,
            direction=Direction.WRITE,
            local_ids=prompt.table.lease(first, -(-end // self._block_tokens)),
            remote_ids=prompt.reserved.blocks_for(start, end),
            skip_tokens=start - first * self._block_tokens,
            final_after_step=final_after_step,
            digest_every=self._digest_every,
            handoff_id=prompt.handoff_id,
        )
        write_id, prompt.num_writes = prompt.num_writes, prompt.num_writes + 1
        prompt.open_writes.add(write_id)
        prompt.num_sent = end
        self.stats.num_bytes += self._bytes_of(len(move.remote_ids) * prompt.reserved.block_tokens)
        self._extend(prompt)
        self._port.write(prompt.handoff_id, prompt.target, write_id, move)

    def _extend(self, prompt: Prompt) -> None:
        self._deadlines.set(prompt.handoff_id, self._clock.now_s() + WRITE_TIMEOUT_S)

    def _bytes_of(self, num_tokens: int) -> int:
        return num_tokens * self._pool.block_bytes // self._block_tokens
