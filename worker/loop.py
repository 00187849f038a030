"""The loop that owns a worker's engine and both halves: receive, handle, plan, execute, publish.

Everything else in the process only posts to its mailbox. It runs on a thread of its own; a test drives `tick`.
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from core.clock import Clock
from core.cost import StepShape, chunk_pairs
from core.errors import DrainingError, InternalError, ShardGroupError
from core.events import ROLE_CHANGED, WorkerLoad
from core.kv_events import KvEvents
from core.request import Role
from core.roles import RoleState
from decode_worker.half import DecodeHalf
from engine.engine import Engine
from engine.kv.accounting import BlockState
from engine.plan import SequenceSlice, StepPlan
from prefill_worker.half import PrefillHalf
from worker.cost.tracker import CostTracker
from worker.departure import Departure, DeparturePhase
from worker.epoch import EpochWork
from worker.mailbox import Mailbox
from worker.pacemaker import Pacemaker
from worker.report import StepOutbox, StepReport

LEAVING = "the worker is leaving; another one goes on with it"
HEARTBEAT_S = 1.0  # an idle worker still says that it lives, and looks at its deadlines, this often


logger = logging.getLogger(__name__)

Publish = Callable[[dict[str, StepReport], WorkerLoad, KvEvents | None], None]
"""Sends the reports by router id, and the rest to all routers. From any thread, one at a time."""


class WorkerLoop:
    """One engine, both halves, one step after another.

    Args:
        engine: owned by this loop; nobody else calls it.
        prefill: the prompt half.
        decode: the token half.
        outbox: where both halves put what routers must hear.
        mailbox: how others reach the halves.
        publish: sends reports.
        is_lending: whether blocks are being written to peers for work that is not the halves'.
        on_inbound: told how many handoffs and prefixes may be written into the pool now, whenever that changes.
        clock: for heartbeats and the time of steps.
        cost: told of every step.
        max_num_batched_tokens: most tokens of one step; decode tokens first, prompt chunks in the rest.
        tpot_limit_s: of the time per token; bounds steps that compute prompts beside sequences.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        prefill: PrefillHalf,
        decode: DecodeHalf,
        outbox: StepOutbox,
        mailbox: Mailbox,
        publish: Publish,
        is_lending: Callable[[], bool],
        on_inbound: Callable[[int], None],
        clock: Clock,
        cost: CostTracker,
        max_num_batched_tokens: int,
        tpot_limit_s: float,
    ) -> None:
        self.engine = engine
        self.prefill = prefill
        self.decode = decode
        self._outbox = outbox
        self._mailbox = mailbox
        self._publish_reports = publish
        self._is_lending = is_lending
        self._on_inbound = on_inbound
        self._num_inbound = 0
        self._clock = clock
        self._max_num_batched_tokens = max_num_batched_tokens
        self._tpot_limit_s = tpot_limit_s
        self._cost = cost
        self._did_work = False
        self._heartbeat_s = clock.now_s()
        self._load = WorkerLoad()
        self._epoch = EpochWork()
        self._pacemaker = Pacemaker(self._beat, HEARTBEAT_S, clock)
        self._departure = Departure(clock)
        self._is_stopping = False

    @property
    def has_left(self) -> bool:
        """Whether `run` has ended because the worker was to leave and has nothing left."""
        return self._departure.phase is DeparturePhase.STOPPED

    def run(self) -> None:
        """Ticks until `stop`, or until the worker has left.

        Raises:
            ShardGroupError: another rank of the worker is gone; the process must end.
        """
        with self._pacemaker.running():
            while not (self._is_stopping or self.has_left):
                self.tick(HEARTBEAT_S)

    def stop(self) -> None:
        """Ends `run` after the current step. From any thread."""
        self._mailbox.post(lambda: setattr(self, "_is_stopping", True))

    def tick(self, idle_wait_s: float = 0.0) -> bool:
        """One round; waits up to `idle_wait_s` for something to happen when the last round had no work.

        Returns:
            Whether there was work: something was computed, or blocks are coming back from host memory.
        """
        calls = self._mailbox.receive(0.0 if self._did_work else idle_wait_s)
        for call in calls:
            call()
        if calls:
            time.sleep(0)  # lets go of the interpreter: answers to peers leave before the step, not after it
        self.prefill.expire()
        self.prefill.renew_leases()
        self.decode.expire()
        self.decode.renew_leases()
        self._go_on_leaving()
        self._cost.relax(self._clock.now_s())
        prompt_slices, decode_slices = self._plan()
        self._tell_inbound()
        did_compute = bool(prompt_slices or decode_slices)
        self._did_work = did_compute or self.prefill.is_awaiting_host
        if did_compute:
            self._execute(prompt_slices, decode_slices)
        self._publish(is_news=bool(calls) and not did_compute)
        return self._did_work

    def keep_alive(self) -> AbstractContextManager[None]:
        """For what holds up a round for long: until it ends, another thread says that the worker lives.

        It also keeps the leases of the handoffs, so neither half may be touched meanwhile.
        """
        return self._pacemaker.working()

    def take_role(self, state: RoleState, ordered_s: float) -> None:
        """Between two steps: queued prompts that have no place in the new role go back; all else goes on.

        Args:
            state: what the worker is for from now on.
            ordered_s: when the order came, on the clock.
        """
        if state.epoch != self._epoch.number:
            self.begin_epoch(state.epoch, state.role, ordered_s)
        if not state.takes(Role.PREFILL):
            self.prefill.return_queued(ROLE_CHANGED)

    def leave(self, drain_timeout_s: float) -> None:
        """Has the worker leave when its work has gone or ended, or comes back after so many seconds.

        What has not started goes back at once. No new work must be posted from now on.
        """
        self._departure.order(drain_timeout_s)
        self.prefill.return_queued(DrainingError.code)
        self.decode.return_announced(DrainingError.code, LEAVING)

    def begin_epoch(self, number: int, role: Role, ordered_s: float) -> None:
        """Counts from now on what steps execute in a new epoch; between two steps, or before the first.

        Args:
            number: of the epoch.
            role: what the worker is for in it.
            ordered_s: when the order for it came, on the clock.
        """
        self._epoch = EpochWork(number, role, ordered_s)

    def load(self) -> WorkerLoad:
        """The worker's load now."""
        pool = self.engine.pool
        blocks = pool.blocks.counts()
        handoffs, prefixes, change = self.prefill.stats, self.prefill.prefix_stats, self._cost.change
        imports, epoch = self.prefill.imports.stats, self._epoch
        received, migrator = self.decode.receiver, self.decode.migrator
        return WorkerLoad(
            queued_prompts=self.prefill.num_queued,
            pending_prompt_tokens=self.prefill.num_pending_tokens,
            running_sequences=self.decode.num_running,
            incoming_handoffs=self.decode.num_incoming,
            blocks_total=pool.num_blocks,
            blocks_free=blocks[BlockState.FREE],
            blocks_running=blocks[BlockState.RUNNING],
            blocks_leased=blocks[BlockState.LEASED],
            blocks_quarantined=blocks[BlockState.QUARANTINED],
            prompt_tokens_computed=self.engine.num_prompt_tokens,
            decode_tokens_computed=self.engine.num_decode_tokens,
            steps=self.engine.num_steps,
            handoffs_sent=handoffs.num_sent,
            handoff_bytes=handoffs.num_bytes,
            handoff_write_s=handoffs.write_s,
            handoff_exposed_s=handoffs.exposed_s,
            handoffs_received=received.num_received,
            running_context_tokens=self.decode.num_context_tokens,
            prefill_cost_change=change.prefill,
            prefill_attention_cost_change=change.prefill_attention,
            decode_cost_change=change.decode,
            decode_attention_cost_change=change.decode_attention,
            prefill_cost_error=self._cost.prefill.relative_error,
            decode_cost_error=self._cost.decode.relative_error,
            blocks_cached=blocks[BlockState.CACHED],
            prefix_query_tokens=prefixes.num_query_tokens,
            prefix_hit_tokens=prefixes.num_hit_tokens,
            blocks_evicted=pool.blocks.num_evicted,
            handoff_bytes_saved=handoffs.num_bytes_saved,
            host_blocks=pool.host.num_blocks if pool.host else 0,
            host_blocks_restored=pool.host.num_restored if pool.host else 0,
            host_blocks_dropped=pool.host.num_dropped if pool.host else 0,
            blocks_free_together=pool.blocks.num_free_together,
            prefix_fetches=imports.num_fetches,
            prefix_fetches_failed=imports.num_failed,
            prefix_tokens_fetched=imports.num_tokens,
            prefix_bytes_fetched=imports.num_bytes,
            prefix_fetch_s=imports.write_s,
            role_epoch=epoch.number,
            epoch_steps=epoch.num_steps,
            epoch_prompt_tokens=epoch.num_prompt_tokens,
            epoch_decode_tokens=epoch.num_decode_tokens,
            epoch_first_work_s=epoch.first_work_s,
            migrations_sent=migrator.stats.num_sent,
            migrations_received=received.num_migrated_here,
            migrations_failed=migrator.stats.num_failed,
            migration_pause_s=migrator.stats.pause_s,
            migration_longest_pause_s=migrator.stats.longest_pause_s,
            migrations_open=migrator.num_open,
        )

    def _beat(self) -> None:
        """What must not wait for a long piece of work to end; the halves stand still until it has."""
        self._publish_reports({}, self._load, None)
        self.prefill.renew_leases()
        self.decode.renew_leases()

    def _go_on_leaving(self) -> None:
        halves_are_idle = self.prefill.is_idle and self.decode.is_idle and not self.prefill.imports.num_inbound
        if self._departure.look(is_empty=halves_are_idle and not self._is_lending()):
            logger.info("the worker leaves; what is left of its work goes back")
            self.prefill.return_all(DrainingError.code, LEAVING)
            self.decode.return_all(DrainingError.code, LEAVING)

    def _plan(self) -> tuple[list[SequenceSlice], list[SequenceSlice]]:
        self.engine.pool.begin_step()
        self.decode.admit()
        decode_slices = self.decode.plan()
        return self.prefill.plan(self._prompt_budget(decode_slices)), decode_slices

    def _prompt_budget(self, decode_slices: list[SequenceSlice]) -> int:
        """Prompt tokens of the next step: where sequences run, they must not stutter, unless they are to leave."""
        room = self._max_num_batched_tokens - len(decode_slices)
        if not (decode_slices and self.prefill.has_prompts):
            return room  # most steps: nothing to weigh
        return self._cost.current.prompt_tokens_beside(
            step_shape((), decode_slices),
            room,
            self._tpot_limit_s,
            self.prefill.num_before,
            may_stretch=self._epoch.role is Role.PREFILL,
        )

    def _execute(self, prompt_slices: list[SequenceSlice], decode_slices: list[SequenceSlice]) -> None:
        started_s = self._clock.now_s()
        try:
            with self.keep_alive():
                result = self.engine.step(StepPlan((*decode_slices, *prompt_slices)))
        except ShardGroupError:
            raise  # the ranks are out of step: no further one can succeed
        except Exception as error:
            logger.exception(
                "an engine step failed; its %d sequences are given up", len(prompt_slices + decode_slices)
            )
            failure = InternalError(f"the engine failed in a step: {error}")
            self.prefill.fail(prompt_slices, failure)
            self.decode.fail(decode_slices, failure)
            return
        self._cost.observe(step_shape(prompt_slices, decode_slices), self._clock.now_s() - started_s)
        self._epoch.count(result, started_s)
        self.prefill.apply(prompt_slices, result)
        self.decode.apply(decode_slices, result)

    def _tell_inbound(self) -> None:
        """Before the step, not after it: a source that has just got its blocks writes while the engine computes."""
        num_inbound = self.decode.receiver.num_receiving + self.prefill.imports.num_inbound
        if num_inbound != self._num_inbound:
            self._num_inbound = num_inbound
            self._on_inbound(num_inbound)

    def _publish(self, *, is_news: bool) -> None:
        """Says what a step brought, or that something has ended: freed blocks are worth as much as tokens."""
        reports = self._outbox.take()
        kv_events = self.engine.pool.name_log.take()
        now_s = self._clock.now_s()
        if reports or is_news or kv_events.num_events or now_s - self._heartbeat_s >= HEARTBEAT_S:
            self._heartbeat_s = now_s
            self._load = self.load()
            self._publish_reports(reports, self._load, kv_events if kv_events.num_events else None)


def step_shape(prompt_slices: Sequence[SequenceSlice], decode_slices: Sequence[SequenceSlice]) -> StepShape:
    """What decides the time of a step, from its plan."""
    return StepShape(
        num_prompt_tokens=sum(len(chunk.token_ids) for chunk in prompt_slices),
        num_prompt_pairs=sum(chunk_pairs(len(chunk.token_ids), chunk.start) for chunk in prompt_slices),
        num_sequences=len(decode_slices),
        num_context_tokens=sum(decoded.end for decoded in decode_slices),
    )
