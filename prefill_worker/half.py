"""The prompt half of a worker: queue, chunks, and handing over KV as chunks finish.

Plain state driven by method calls from the worker's loop; it neither waits nor talks to anybody but its ports.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from core.clock import Clock
from core.errors import BatonError, HandoffError, StalledTransferError
from core.events import ReturnedWork, TokenEvent
from core.ids import WorkerId
from core.request import Assignment
from core.transfers import PairStats
from engine.kv.accounting import Hold
from engine.kv.block_table import BlockTable
from engine.kv.pool import BlockPool
from engine.plan import Draw, SequenceSlice, SliceKind, StepResult
from engine.sampling.rules import LogitRules
from kvtransfer.move import MoveOutcome
from kvtransfer.port import HandoffPort, Outbox, Reservation
from kvtransfer.states import SourceEvent, SourceState
from prefill_worker.prefix_importer import PrefixImporter
from prefill_worker.prompt import Prompt
from prefill_worker.sender import WRITE_TIMEOUT_S, HandoffSender
from prefill_worker.stats import HandoffStats, PrefixStats

RENEWAL_S = 10.0  # a target's lease of 30 s outlives two renewals that get lost

LEASE_LOST = "lease_lost"
TARGET_LOST = "target_lost"


class PrefillHalf:
    """Computes prompts first come, first served, several in one step when they fit its budget.

    What is in the prefix cache is not computed: looked up before each chunk, because requests with a common beginning
    often come together, and the first of them publishes its blocks as it goes. At least the last token of a prompt is
    always computed, for the first token of the answer is drawn after it.

    Args:
        pool: where KV lives; this half allocates and frees its prompts' blocks.
        port: carries handoff orders to targets.
        outbox: where tokens and returned work for routers go.
        clock: for the deadline of writes and the renewal of leases.
        next_step: the number that the engine's next step will have.
        digest_every: checksums travel with every so manyth block, the first of each write first; 0 for none.

    Attributes:
        imports: beginnings of prompts that come from peers; a prompt that waits for one lets others go first.
    """

    def __init__(
        self,
        pool: BlockPool,
        port: HandoffPort,
        outbox: Outbox,
        clock: Clock,
        *,
        next_step: Callable[[], int],
        digest_every: int = 0,
    ) -> None:
        self._pool = pool
        self._port = port
        self._outbox = outbox
        self._clock = clock
        self._sender = HandoffSender(pool, port, clock, next_step, digest_every)
        self._renewed_s = clock.now_s()
        self._queued: deque[Prompt] = deque()
        self._computing: dict[str, Prompt] = {}
        self._prompts: dict[str, Prompt] = {}
        self.prefix_stats = PrefixStats()
        self.imports = PrefixImporter(pool, clock)

    @property
    def stats(self) -> HandoffStats:
        """Totals of the handoffs sent."""
        return self._sender.stats

    @property
    def pairs(self) -> dict[WorkerId, PairStats]:
        """The same by target; of each worker's latest incarnation only."""
        return self._sender.pairs

    @property
    def num_queued(self) -> int:
        """Prompts not started."""
        return len(self._queued)

    @property
    def num_pending_tokens(self) -> int:
        """Tokens of queued and started prompts that are still to be computed."""
        return sum(p.num_remaining for p in (*self._queued, *self._computing.values()))

    @property
    def is_awaiting_host(self) -> bool:
        """Whether a prompt goes on with the next step although the last plan had nothing of it to compute."""
        return any(p.table.is_awaiting_host(self._max_shared(p)) for p in self._computing.values())

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to compute and nothing to hand over."""
        return not self._prompts

    # --- orders from routers

    def assign(self, router_id: str, assignment: Assignment) -> None:
        """Queues a prompt. It starts when a step has room for it and the pool has blocks for all of it.

        An attempt that is here already is not taken twice.
        """
        if assignment.handoff_id in self._prompts:
            return
        table = BlockTable(self._pool, assignment.cache_salt, assignment.prompt)
        prompt = Prompt(assignment, router_id, table)
        self._prompts[prompt.handoff_id] = prompt
        self._queued.append(prompt)
        self.imports.want(assignment)

    def cancel(self, handoff_id: str) -> None:
        """Stops work on a prompt and frees its blocks as soon as no write reads them. Unknown ids are ignored."""
        if prompt := self._prompts.get(handoff_id):
            self._cancel(prompt)

    def drop_router(self, router_id: str) -> None:
        """Cancels everything a router assigned: it is gone."""
        for prompt in [p for p in self._prompts.values() if p.router_id == router_id]:
            self._cancel(prompt)

    def worker_gone(self, worker: WorkerId) -> None:
        """This incarnation of a worker and all earlier ones are dead: what they were to decode goes back.

        Writes to them that are in flight end by themselves; until then their blocks are quarantined. Beginnings that
        were to come from them are computed.
        """
        self.imports.worker_gone(worker)
        for prompt in list(self._prompts.values()):
            target = prompt.target.worker
            if prompt.needs_handoff and worker.outlasts(target):
                self._lose(prompt, TARGET_LOST, f"worker {target} died before it had taken over")

    # --- the engine's step

    def plan(self, budget_tokens: int) -> list[SequenceSlice]:
        """The prompt chunks of the next step, at most `budget_tokens` tokens, oldest prompts first.

        The step must follow: writes of what it completes are ordered already.
        """
        slices: list[SequenceSlice] = []
        prompts = self._in_turn()
        while budget_tokens > 0 and (prompt := next(prompts, None)) is not None:
            if not self._find_cached(prompt):
                continue
            chunk = self._chunk(prompt, budget_tokens)
            if chunk.draw is not None and prompt.state is SourceState.OPEN:
                self._sender.send_with_next_step(prompt)
            slices.append(chunk)
            budget_tokens -= len(chunk.token_ids)
        return slices

    def apply(self, slices: Sequence[SequenceSlice], result: StepResult) -> None:
        """Takes in what a step computed for the slices of `plan`."""
        for chunk in slices:
            prompt = self._computing[chunk.sequence_id]
            prompt.num_computed = chunk.end
            prompt.table.publish(chunk.end)
            if prompt.num_remaining == 0:
                self._finish_prompt(prompt, result)
            if prompt.state is SourceState.OPEN:
                self._sender.send_ready(prompt)

    def fail(self, slices: Sequence[SequenceSlice], error: BatonError) -> None:
        """Gives back the prompts of a step that failed; they are not tried again."""
        for chunk in slices:
            self._give_back(self._computing[chunk.sequence_id], error.code, error.message, retryable=False)

    def expire(self) -> None:
        """Gives back prompts of whose writes and commit nothing has ended for too long."""
        self.imports.expire()
        for handoff_id in self._sender.take_overdue():
            prompt = self._prompts[handoff_id]
            message = f"writing KV to {prompt.target.worker} took over {WRITE_TIMEOUT_S:g} s; it may be stopped"
            self._lose(prompt, StalledTransferError.code, message)

    def renew_leases(self) -> None:
        """Tells targets every `RENEWAL_S` which handoffs are alive; a loop that is stuck or stopped does not.

        While a step computes, from another thread than the loop's, which then calls nothing here.
        """
        if (now_s := self._clock.now_s()) - self._renewed_s >= RENEWAL_S:
            self._renewed_s = now_s
            self._sender.renew(self._prompts.values())

    # --- answers from the target (HandoffSource)

    def on_begun(self, handoff_id: str, reserved: Reservation) -> None:
        """The target has reserved blocks: send what is computed, but for what it has already."""
        prompt = self._prompts.get(handoff_id)
        if prompt is None or prompt.state is not SourceState.OPENING:
            return  # abandoned meanwhile; the abort is on its way to the target
        try:
            self._sender.open(prompt, reserved)
        except HandoffError as error:
            self._lose(prompt, error.code, error.message)
        else:
            self._sender.send_ready(prompt)

    def on_begin_refused(self, handoff_id: str, error: BatonError) -> None:
        """The target takes nothing: the router places the request again."""
        prompt = self._prompts.get(handoff_id)
        if prompt is not None and prompt.state is SourceState.OPENING:
            self._lose(prompt, error.code, error.message)

    def on_written(self, handoff_id: str, write_id: int, outcome: MoveOutcome, ended_s: float) -> None:
        """A write has ended: send what has been computed meanwhile, or give the prompt back."""
        prompt = self._prompts[handoff_id]
        self._sender.on_written(prompt, write_id, outcome, ended_s)
        if prompt.state is SourceState.DRAINING:
            self._drain(prompt)
        elif prompt.state is SourceState.OPEN:
            if outcome.error is None:
                self._sender.send_ready(prompt)
            else:
                self._lose(prompt, outcome.error.code, outcome.error.message)

    def on_finished(self, handoff_id: str, error: BatonError | None, acknowledged_s: float) -> None:
        """The target runs the sequence, or does not want it; either way this worker's blocks are free."""
        prompt = self._prompts[handoff_id]
        self._sender.on_finished(prompt, error, acknowledged_s)
        prompt.move(SourceEvent.END)
        if error is not None:
            self._count_failure(prompt, error.code)
            self._return(prompt, error.code, error.message)
            self._port.abort(prompt.handoff_id, prompt.target)  # a commit that got lost leaves the target waiting
        self._forget(prompt)

    def on_leases_lost(self, handoff_ids: Sequence[str]) -> None:
        """Targets no longer keep blocks for these: they go back, but for those whose commit will be answered."""
        for handoff_id in handoff_ids:
            prompt = self._prompts.get(handoff_id)
            if prompt is not None and prompt.state is SourceState.OPEN:
                self._lose(prompt, LEASE_LOST, f"worker {prompt.target.worker} has let go of the blocks it reserved")

    # --- inside

    def _in_turn(self) -> Iterator[Prompt]:
        """The prompts that get the next chunks: started ones in order, then new ones, started on demand."""
        yield from list(self._computing.values())
        while (prompt := self._next_queued()) is not None and self._try_start(prompt):
            self._queued.remove(prompt)
            yield prompt

    def _next_queued(self) -> Prompt | None:
        """The oldest prompt that does not wait for its beginning to come from a peer."""
        return next((p for p in self._queued if not self.imports.is_awaited(p.handoff_id)), None)

    def _try_start(self, prompt: Prompt) -> bool:
        """Reserves a prompt's blocks and tells its target; False when they do not fit."""
        num_blocks = self._pool.layout.blocks_for(len(prompt.assignment.prompt))
        if not prompt.table.try_reserve(num_blocks, max_shared=self._max_shared(prompt)):
            return False
        self._computing[prompt.handoff_id] = prompt
        self.imports.leave(prompt.handoff_id)
        if prompt.needs_handoff:
            self._sender.begin(prompt)
        return True

    def _find_cached(self, prompt: Prompt) -> bool:
        """Goes on behind what the cache knows of a prompt; False when more of it comes with the next step."""
        max_shared = self._max_shared(prompt)
        num_found = prompt.table.adopt(max_shared) * self._pool.layout.block_tokens
        if num_found > prompt.num_computed:
            prompt.num_cached += num_found - prompt.num_computed
            prompt.num_computed = num_found
        return not prompt.table.is_awaiting_host(max_shared)

    def _max_shared(self, prompt: Prompt) -> int:
        """Leading blocks that may come from the cache."""
        return (len(prompt.assignment.prompt) - 1) // self._pool.layout.block_tokens

    def _chunk(self, prompt: Prompt, budget_tokens: int) -> SequenceSlice:
        assignment = prompt.assignment
        end = prompt.num_computed + min(prompt.num_remaining, budget_tokens)
        is_last = end == len(assignment.prompt)
        return SequenceSlice(
            sequence_id=prompt.handoff_id,
            kind=SliceKind.PROMPT,
            token_ids=assignment.prompt[prompt.num_computed : end],
            start=prompt.num_computed,
            block_ids=prompt.table.block_ids,
            draw=first_draw(assignment) if is_last else None,
        )

    def _finish_prompt(self, prompt: Prompt, result: StepResult) -> None:
        """Tells the router the first token; the handoff goes on unless the answer ends with it."""
        token_id = prompt.first_token = result.tokens[prompt.handoff_id]
        prompt.computed_s = self._clock.now_s()
        del self._computing[prompt.handoff_id]
        assignment = prompt.assignment
        reason = assignment.finish_reason(token_id, num_generated=1)
        event = TokenEvent(
            prompt.handoff_id,
            assignment.first_position,
            token_id,
            reason,
            logprobs=result.logprobs.get(prompt.handoff_id),
            cached_tokens=prompt.num_cached,
        )
        self._outbox.token(prompt.router_id, event)
        self.prefix_stats.num_query_tokens += len(assignment.prompt)
        self.prefix_stats.num_hit_tokens += prompt.num_cached
        if reason is not None:
            self._cancel(prompt)

    def _cancel(self, prompt: Prompt) -> None:
        prompt.is_returned = True  # nobody wants it back, however it ends
        self._abandon(prompt)

    def _lose(self, prompt: Prompt, code: str, message: str) -> None:
        """Gives a prompt back because its handoff has failed."""
        self._count_failure(prompt, code)
        self._give_back(prompt, code, message)

    def _count_failure(self, prompt: Prompt, code: str) -> None:
        """The first failure of a handoff that was still wanted counts; others follow from it."""
        if prompt.pair is not None and not prompt.is_returned:
            prompt.pair.fail(code)

    def _give_back(self, prompt: Prompt, code: str, message: str, *, retryable: bool = True) -> None:
        self._return(prompt, code, message, retryable=retryable)
        self._abandon(prompt)

    def _return(self, prompt: Prompt, code: str, message: str, *, retryable: bool = True) -> None:
        if not prompt.is_returned:
            prompt.is_returned = True
            self._outbox.returned(prompt.router_id, ReturnedWork(prompt.handoff_id, code, message, retryable))

    def _abandon(self, prompt: Prompt) -> None:
        """Ends a prompt from any state. While a write may read its blocks they are quarantined, not freed."""
        if prompt.state is SourceState.DRAINING:
            return
        if prompt in self._queued:
            self._queued.remove(prompt)
            self.imports.leave(prompt.handoff_id)
        self._computing.pop(prompt.handoff_id, None)
        self._sender.let_go(prompt)
        if prompt.is_in_flight:
            prompt.move(SourceEvent.ABANDON_IN_FLIGHT)
            prompt.table.move(Hold.LEASED, Hold.QUARANTINED)
            return
        was_begun = prompt.is_begun
        prompt.move(SourceEvent.ABANDON)
        if was_begun:
            self._port.abort(prompt.handoff_id, prompt.target)
        self._forget(prompt)

    def _drain(self, prompt: Prompt) -> None:
        if not prompt.is_in_flight:
            prompt.move(SourceEvent.END)
            self._port.abort(prompt.handoff_id, prompt.target)
            self._forget(prompt)

    def _forget(self, prompt: Prompt) -> None:
        prompt.table.release()
        del self._prompts[prompt.handoff_id]


def first_draw(work: Assignment) -> Draw:
    """How an attempt's first token is drawn, after its whole prompt."""
    rules = LogitRules.of(work.sampling, work.stop_token_ids, work.prompt, work.first_position)
    return Draw(work.sampling, work.first_position, rules)
