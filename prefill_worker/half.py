"""The prompt half of a worker: queue, chunks, and handing over KV as chunks finish.

Plain state driven by method calls from the worker's loop; it neither waits nor talks to anybody but its ports.
"""

from collections.abc import Callable, Sequence

from core.clock import Clock
from core.errors import BatonError, HandoffError, StalledTransferError
from core.events import ReturnedWork, TokenEvent
from core.ids import WorkerId
from core.request import Assignment
from core.transfers import PairStats
from engine.kv.accounting import Hold
from engine.kv.block_table import BlockTable
from engine.kv.pool import BlockPool
from engine.plan import SequenceSlice, StepResult
from kvtransfer.handoff_stats import HandoffStats
from kvtransfer.move import MoveOutcome
from kvtransfer.port import LEASE_LOST, TARGET_LOST, HandoffPort, Outbox, Reservation
from kvtransfer.sender import WRITE_TIMEOUT_S, HandoffSender
from kvtransfer.states import SourceState
from prefill_worker.lineup import Lineup
from prefill_worker.prefix_importer import PrefixImporter
from prefill_worker.prompt import Prompt
from prefill_worker.stats import PrefixStats

TakeOver = Callable[[str, Assignment, BlockTable, int], None]
"""Has this worker's token half go on with a prompt: router id, work, the blocks, which are its own from then on, and
the first token, which the router has been told."""


class PrefillHalf:
    """Computes prompts in the order of `Lineup`, several in one step when they fit its budget.

    What is in the prefix cache is not computed: looked up before each chunk, because requests with a common beginning
    often come together, and the first of them publishes its blocks as it goes. At least the last token of a prompt is
    always computed, for the first token of the answer is drawn after it.

    Args:
        pool: where KV lives; this half allocates and frees its prompts' blocks.
        port: carries handoff orders to targets.
        outbox: where tokens and returned work for routers go.
        clock: for the deadline of writes and the renewal of leases.
        next_step: the number that the engine's next step will have.
        take_over: gets prompts whose assignment names this worker for the tokens as well; called once each.
        digest_every: checksums travel with every so manyth block, the first of each write first; 0 for none.
        pairs: totals by target, shared with whoever else of this worker sends.

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
        take_over: TakeOver,
        digest_every: int = 0,
        pairs: dict[WorkerId, PairStats] | None = None,
    ) -> None:
        self._pool = pool
        self._outbox = outbox
        self._clock = clock
        self._next_step = next_step
        self._take_over = take_over
        self._sender = HandoffSender(
            pool, port, clock, digest_every=digest_every, pairs={} if pairs is None else pairs
        )
        self._prompts: dict[str, Prompt] = {}
        self.prefix_stats = PrefixStats()
        self.imports = PrefixImporter(pool, clock)
        self._lineup = Lineup(pool, self.imports, self._begin)

    @property
    def stats(self) -> HandoffStats:
        """Totals of the handoffs sent."""
        return self._sender.stats

    @property
    def pairs(self) -> dict[WorkerId, PairStats]:
        """The same by target, with what else this worker sends; of each target's latest incarnation only."""
        return self._sender.pairs

    @property
    def num_queued(self) -> int:
        """Prompts not started."""
        return len(self._lineup.queued)

    @property
    def num_pending_tokens(self) -> int:
        """Tokens of queued and started prompts that are still to be computed."""
        return self._lineup.num_pending_tokens

    @property
    def has_prompts(self) -> bool:
        """Whether any prompt is queued or being computed."""
        return not self._lineup.is_empty

    @property
    def num_before(self) -> int:
        """Tokens that are computed already of the prompt that gets the next chunk; 0 when that is a new one."""
        return self._lineup.num_before

    @property
    def is_awaiting_host(self) -> bool:
        """Whether a prompt goes on with the next step although the last plan had nothing of it to compute."""
        return self._lineup.is_awaiting_host

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to compute and nothing to hand over."""
        return not self._prompts

    # --- orders from routers

    def assign(self, router_id: str, assignment: Assignment, arrived_s: float | None = None) -> None:
        """Queues a prompt. It starts when a step has room for it and the pool has blocks for all of it.

        An attempt that is here already is not taken twice.

        Args:
            router_id: who assigned it.
            assignment: what is to be done.
            arrived_s: when it came, on the clock: the step under way may have kept it waiting. None: now.
        """
        if assignment.handoff_id in self._prompts:
            return
        table = BlockTable(self._pool, assignment.cache_salt, assignment.prompt)
        now_s = self._clock.now_s()
        prompt = Prompt.of(assignment, router_id, table, now_s if arrived_s is None else arrived_s)
        self._prompts[prompt.handoff_id] = prompt
        self._lineup.add(prompt)

    def cancel(self, handoff_id: str) -> None:
        """Stops work on a prompt and frees its blocks as soon as no write reads them. Unknown ids are ignored."""
        if prompt := self._prompts.get(handoff_id):
            self._cancel(prompt)

    def return_queued(self, code: str, num_tokens: int | None = None, router_id: str | None = None) -> None:
        """Gives back prompts that have not started, the youngest first.

        Args:
            code: says why, to their routers.
            num_tokens: of prompts to give back at most, but one prompt at least; None for all.
            router_id: whose; None for everybody's.
        """
        for prompt in self._lineup.youngest_queued(num_tokens, router_id):
            self._give_back(prompt, code, "the prompt had not been started, and has its place elsewhere now")

    def return_all(self, code: str, message: str) -> None:
        """Gives back all prompts, but those whose target has been told to take over: it will answer."""
        for prompt in list(self._prompts.values()):
            if prompt.handoff.state is not SourceState.COMMITTING:
                self._give_back(prompt, code, message)

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
            target = prompt.handoff.target.worker
            if prompt.needs_handoff and worker.outlasts(target):
                self._lose(prompt, TARGET_LOST, f"worker {target} died before it had taken over")

    # --- the engine's step

    def plan(self, budget_tokens: int) -> list[SequenceSlice]:
        """The prompt chunks of the next step, at most `budget_tokens` tokens.

        The step must follow: writes of what it completes are ordered already.
        """
        slices: list[SequenceSlice] = []
        for prompt, chunk in self._lineup.chunks(budget_tokens):
            if chunk.draw is not None and prompt.handoff.state is SourceState.OPEN:
                self._sender.send_with_step(prompt.handoff, prompt.num_computed, self._next_step())
            slices.append(chunk)
        return slices

    def apply(self, slices: Sequence[SequenceSlice], result: StepResult) -> None:
        """Takes in what a step computed for the slices of `plan`."""
        for chunk in slices:
            prompt = self._prompts[chunk.sequence_id]
            prompt.num_computed = chunk.end
            prompt.table.publish(chunk.end)
            if prompt.num_remaining == 0:
                self._finish_prompt(prompt, result)
            if prompt.handoff.state is SourceState.OPEN:
                self._send_ready(prompt)

    def fail(self, slices: Sequence[SequenceSlice], error: BatonError) -> None:
        """Gives back the prompts of a step that failed; they are not tried again."""
        for chunk in slices:
            self._give_back(self._prompts[chunk.sequence_id], error.code, error.message, retryable=False)

    def expire(self) -> None:
        """Gives back prompts of whose writes and commit nothing has ended for too long."""
        self.imports.expire()
        for handoff_id in self._sender.take_overdue():
            prompt = self._prompts[handoff_id]
            message = (
                f"writing KV to {prompt.handoff.target.worker} took over {WRITE_TIMEOUT_S:g} s; it may be stopped"
            )
            self._lose(prompt, StalledTransferError.code, message)

    def renew_leases(self) -> None:
        """Tells targets now and then which handoffs are alive; a loop that is stuck or stopped does not.

        While a step computes, from another thread than the loop's, which then calls nothing here.
        """
        self._sender.renew_leases(prompt.handoff for prompt in self._prompts.values())

    # --- answers from the target (HandoffSource)

    def on_begun(self, handoff_id: str, reserved: Reservation) -> None:
        """The target has reserved blocks: send what is computed, but for what it has already."""
        prompt = self._prompts.get(handoff_id)
        if prompt is None or prompt.handoff.state is not SourceState.OPENING:
            return  # abandoned meanwhile; the abort is on its way to the target
        try:
            self._sender.open(prompt.handoff, reserved)
        except HandoffError as error:
            self._lose(prompt, error.code, error.message)
        else:
            self._send_ready(prompt)

    def on_begin_refused(self, handoff_id: str, error: BatonError) -> None:
        """The target takes nothing: the router places the request again."""
        prompt = self._prompts.get(handoff_id)
        if prompt is not None and prompt.handoff.state is SourceState.OPENING:
            self._lose(prompt, error.code, error.message)

    def on_written(self, handoff_id: str, write_id: int, outcome: MoveOutcome, ended_s: float) -> None:
        """A write has ended: send what has been computed meanwhile, or give the prompt back."""
        prompt = self._prompts[handoff_id]
        handoff = prompt.handoff
        self._sender.on_written(handoff, write_id, outcome, ended_s)
        if handoff.state is SourceState.DRAINING:
            if self._sender.end_draining(handoff):
                self._forget(prompt)
        elif handoff.state is SourceState.OPEN:
            if outcome.error is None:
                self._send_ready(prompt)
            else:
                self._lose(prompt, outcome.error.code, outcome.error.message)

    def on_finished(self, handoff_id: str, error: BatonError | None, acknowledged_s: float) -> None:
        """The target runs the sequence, or does not want it; either way this worker's blocks are free."""
        prompt = self._prompts[handoff_id]
        self._sender.on_finished(prompt.handoff, error, acknowledged_s)
        if error is not None:
            self._count_failure(prompt, error.code)
            self._return(prompt, error.code, error.message)
        self._forget(prompt)

    def on_leases_lost(self, handoff_ids: Sequence[str]) -> None:
        """Targets no longer keep blocks for these: they go back, but for those whose commit will be answered."""
        for handoff_id in handoff_ids:
            prompt = self._prompts.get(handoff_id)
            if prompt is not None and prompt.handoff.state is SourceState.OPEN:
                message = f"worker {prompt.handoff.target.worker} has let go of the blocks it reserved"
                self._lose(prompt, LEASE_LOST, message)

    # --- inside

    def _begin(self, prompt: Prompt) -> None:
        """Tells a prompt's target when its first chunk is planned."""
        prompt.started_s = self._clock.now_s()
        if prompt.needs_handoff:
            self._sender.begin(prompt.handoff, is_running=False)

    def _send_ready(self, prompt: Prompt) -> None:
        """Sends what has become final, and with the last of it the commit."""
        if prompt.first_token is None:
            self._sender.send(prompt.handoff, prompt.num_computed)
        else:
            self._sender.finish(prompt.handoff, prompt.num_tokens, (prompt.first_token,))

    def _finish_prompt(self, prompt: Prompt, result: StepResult) -> None:
        """Tells the router the first token; the sequence goes on, there or here, unless the answer ends with it."""
        token_id = prompt.first_token = result.tokens[prompt.handoff_id]
        prompt.handoff.computed_s = self._clock.now_s()
        self._lineup.remove(prompt)
        assignment = prompt.assignment
        reason = assignment.finish_reason(token_id, num_generated=1)
        event = TokenEvent(
            prompt.handoff_id,
            assignment.first_position,
            token_id,
            reason,
            logprobs=result.logprobs.get(prompt.handoff_id),
            cached_tokens=prompt.num_cached,
            timing=prompt.timing,
        )
        self._outbox.token(prompt.router_id, event)
        self.prefix_stats.num_query_tokens += len(assignment.prompt)
        self.prefix_stats.num_hit_tokens += prompt.num_cached
        if reason is not None:
            self._cancel(prompt)
        elif prompt.stays_here:
            del self._prompts[prompt.handoff_id]
            self._take_over(prompt.router_id, assignment, prompt.table, token_id)

    def _cancel(self, prompt: Prompt) -> None:
        prompt.is_returned = True  # nobody wants it back, however it ends
        self._abandon(prompt)

    def _lose(self, prompt: Prompt, code: str, message: str) -> None:
        """Gives a prompt back because its handoff has failed."""
        self._count_failure(prompt, code)
        self._give_back(prompt, code, message)

    def _count_failure(self, prompt: Prompt, code: str) -> None:
        """The first failure of a handoff that was still wanted counts; others follow from it."""
        if prompt.handoff.pair is not None and not prompt.is_returned:
            prompt.handoff.pair.fail(code)

    def _give_back(self, prompt: Prompt, code: str, message: str, *, retryable: bool = True) -> None:
        self._return(prompt, code, message, retryable=retryable)
        self._abandon(prompt)

    def _return(self, prompt: Prompt, code: str, message: str, *, retryable: bool = True) -> None:
        if not prompt.is_returned:
            prompt.is_returned = True
            self._outbox.returned(prompt.router_id, ReturnedWork(prompt.handoff_id, code, message, retryable))

    def _abandon(self, prompt: Prompt) -> None:
        """Ends a prompt from any state. While a write may read its blocks they are quarantined, not freed."""
        handoff = prompt.handoff
        if handoff.state is SourceState.DRAINING:
            return
        self._lineup.remove(prompt)
        if self._sender.abandon(handoff):
            self._forget(prompt)
        else:
            prompt.table.move(Hold.LEASED, Hold.QUARANTINED)

    def _forget(self, prompt: Prompt) -> None:
        prompt.table.release()
        del self._prompts[prompt.handoff_id]
