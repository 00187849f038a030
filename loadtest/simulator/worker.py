"""A worker whose steps are predicted rather than computed; otherwise it plans them as the real one does.

Decode tokens come first, prompt chunks fill the rest of a step, started prompts before new ones, first come, first
served. A prompt starts when the pool has room for all of it; a sequence is let in when there is a place in the batch
and room for its context; where room runs out, the youngest goes back to the router. Steps that only generate, and
whose batch does not change, are taken in one go. KV is counted in tokens, not in blocks.
"""

import heapq
from collections import deque
from collections.abc import Iterator

from core.cost import StepShape
from core.ids import WorkerId
from core.request import Role
from loadtest.simulator.agenda import Agenda
from loadtest.simulator.decode_steps import DecodeSteps
from loadtest.simulator.job import Job
from loadtest.simulator.observer import WorkerObserver
from loadtest.simulator.prefix_cache import PrefixCache
from loadtest.simulator.spec import WorkerSpec
from loadtest.simulator.step_plan import prompt_budget, step_shape


class SimWorker:
    """One process of a worker, from its start to its death.

    Attributes:
        id: as the router knows it.
        number: of the worker in its fleet, from 0.
        spec: what it is.
        role: what it is for now; whoever sets it sees to what has no place in it.
        since_s: when it took the role.
        cache: beginnings of prompts that it has.
        running_context_tokens: that the next step attends to.
        pending_prompt_tokens: prompt tokens to compute, as far as is known now.
        num_prompt_tokens: computed since the start.
        num_decode_tokens: generated since the start.
        busy_s: that its steps have taken.
    """

    def __init__(
        self,
        worker: WorkerId,
        number: int,
        spec: WorkerSpec,
        role: Role,
        *,
        agenda: Agenda,
        observer: WorkerObserver,
        changed: "dict[SimWorker, None]",
    ) -> None:
        self.id = worker
        self.number = number
        self.spec = spec
        self.role = role
        self.since_s = agenda.now_s
        self.cache = PrefixCache(spec.prefix_block_tokens)
        self.running_context_tokens = 0
        self.pending_prompt_tokens = 0
        self.num_prompt_tokens = 0
        self.num_decode_tokens = 0
        self.busy_s = 0.0
        self._token_wait_s = 0.0  # between tokens, summed over all that were generated
        self._agenda = agenda
        self._observer = observer
        self._changed = changed  # gets this worker whenever placement would see something else of it
        self._queued: deque[Job] = deque()
        self._computing: list[Job] = []
        self._opening: deque[Job] = deque()  # sequences that wait for a place and room
        self._adopted: deque[Job] = deque()  # sequences computed here, which need a place only
        self._reserved: dict[Job, int] = {}  # sequences with a place that have not joined, and their tokens
        self._running: dict[Job, int] = {}  # in order of joining, and the number of the step that ends each
        self._ends: list[tuple[int, int, Job]] = []  # heap of the same, with what has left meanwhile
        self._joining: list[Job] = []
        self._stopping: list[Job] = []
        self._prompt_kv: dict[Job, int] = {}  # tokens of prompts that are started and not handed over
        self._kv_tokens_used = 0
        self._num_steps = 0  # that generated
        self._chunks: list[tuple[Job, int]] = []  # of the steps under way
        self._steps: DecodeSteps | None = None  # under way, when they only generate
        self._planned_steps = 0
        self._started_s = 0.0
        self._end_number = 0  # of the event that ends the steps under way; earlier ones mean nothing
        self._is_busy = False

    # --- what it has

    @property
    def num_queued(self) -> int:
        """Prompts that it has not started."""
        return len(self._queued)

    @property
    def oldest_queued(self) -> Job | None:
        """The one of them that came first."""
        return self._queued[0] if self._queued else None

    @property
    def prompts(self) -> tuple[Job, ...]:
        """Prompts that it has not computed, oldest first."""
        return (*self._computing, *self._queued)

    @property
    def running(self) -> tuple[Job, ...]:
        """Sequences that it generates, or does from the next step on, oldest first."""
        return (*self._running, *self._joining)

    @property
    def num_running(self) -> int:
        """How many those are."""
        return len(self._running) + len(self._joining)

    @property
    def incoming(self) -> tuple[Job, ...]:
        """Sequences that have a place here, or wait for one, and do not run."""
        return (*self._reserved, *self._adopted, *self._opening)

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing to do and waits for nothing."""
        return not (self._is_busy or self._queued or self._computing or self._prompt_kv or self.incoming)

    @property
    def kv_tokens_free(self) -> int:
        """Tokens for which there is room; what is only cached counts as free."""
        return self.spec.kv_tokens - self._kv_tokens_used

    def num_generated(self, job: Job) -> int:
        """Tokens of the answer of a sequence that is here, as of the last step that is in the books."""
        last_step = self._running.get(job)
        return job.num_generated if last_step is None else job.arrival.answer_tokens - (last_step - self._num_steps)

    @property
    def generated(self) -> tuple[int, float]:
        """Tokens generated so far, and the seconds between each and the one before it, summed."""
        num_done = self._steps.num_done(self._agenda.now_s - self._started_s) if self._steps else 0
        num_sequences = len(self._running)
        waited_s = self._steps.seconds(num_done) * num_sequences if self._steps else 0.0
        return self.num_decode_tokens + num_done * num_sequences, self._token_wait_s + waited_s

    # --- prompts

    def queue_prompt(self, job: Job) -> None:
        """Takes a prompt."""
        self._changed[self] = None
        self.pending_prompt_tokens += job.num_remaining
        self._queued.append(job)
        self._wake()

    def take_queued(self) -> list[Job]:
        """Gives back all prompts that are not started."""
        self._changed[self] = None
        taken = list(self._queued)
        self._queued.clear()
        self.pending_prompt_tokens -= sum(job.num_remaining for job in taken)
        return taken

    def release_prompt(self, job: Job) -> None:
        """A prompt has been handed over, or nobody wants it; its KV stays cached while there is room."""
        if self.role is not Role.PREFILL:  # whose room for sequences nobody asks for
            self._changed[self] = None
        self._kv_tokens_used -= self._prompt_kv.pop(job)
        self.cache.keep(job.arrival.block_ids, self.kv_tokens_free)
        self._wake()

    def withdraw(self, job: Job) -> None:
        """Nobody wants what a job has here any more; it does not generate here. What is computed stays cached."""
        if job in self._queued or job in self._computing:
            self.pending_prompt_tokens -= job.num_remaining
        for waiting in (self._queued, self._computing, self._adopted):
            if job in waiting:
                waiting.remove(job)
        if job in self._prompt_kv:
            self._kv_tokens_used -= self._prompt_kv.pop(job)
            num_blocks = job.num_computed // self.spec.prefix_block_tokens
            self.cache.keep(job.arrival.block_ids[:num_blocks], self.kv_tokens_free)
        self.close(job)

    # --- sequences

    def open(self, job: Job) -> None:
        """A sequence wants a place; `on_reserved` says when it has it. First come, first served."""
        self._opening.append(job)
        self._wake()

    def is_asked(self, job: Job) -> bool:
        """Whether a sequence has a place here that it has not taken, or waits for one."""
        return job in self._reserved or job in self._opening

    def close(self, job: Job) -> None:
        """A sequence does not come; one that never asked for a place is ignored."""
        self._changed[self] = None
        if job in self._opening:
            self._opening.remove(job)
        else:
            self._kv_tokens_used -= self._reserved.pop(job, 0)
        self._wake()

    def adopt(self, job: Job) -> None:
        """A prompt computed here is to be generated here: its KV is the sequence's, which wants a place only."""
        self._adopted.append(job)

    def join(self, job: Job) -> None:
        """A sequence that has a place is in the batch from the next step on."""
        self._changed[self] = None
        self._joining.append(job)
        self._wake()

    def stop(self, job: Job) -> None:
        """Has a running sequence stand still after the step under way; `on_stopped` says when, unless it ends."""
        self._stopping.append(job)
        self._wake()

    def kill(self) -> None:
        """Has it die: nothing of it happens any more, and its sequences have what their last whole step brought."""
        if self._steps is not None:
            num_done = self._steps.num_done(self._agenda.now_s - self._started_s)
            self._num_steps += min(num_done, self._planned_steps - 1)
        for job in self._running:
            job.num_generated = self.num_generated(job)
        self._end_number += 1
        self._is_busy, self._steps = True, None

    # --- steps

    def _wake(self) -> None:
        """Something may change what the next step does: begin one, or have it come soon."""
        if not self._is_busy:
            self._begin()
        elif self._steps is not None:
            self._cut(self._steps)

    def _cut(self, steps: DecodeSteps) -> None:
        """Ends steps that were to go on with the one that is under way now."""
        elapsed_s = self._agenda.now_s - self._started_s
        num_done = steps.num_done(elapsed_s)
        if self._started_s + steps.seconds(num_done) < self._agenda.now_s or not num_done:
            num_done += 1
        if num_done < self._planned_steps:
            self._end_after(num_done, steps.seconds(num_done))

    def _end_after(self, num_steps: int, seconds: float) -> None:
        self._planned_steps = num_steps
        self._end_number += 1
        number = self._end_number
        end_s = max(self._agenda.now_s, self._started_s + seconds)
        self._agenda.at(end_s, lambda: self._end() if number == self._end_number else None)

    def _begin(self) -> None:
        """Plans steps and lets them take their time."""
        self._is_busy = True  # what is heard meanwhile is in this plan, or in the next
        self._changed[self] = None
        if self._adopted or self._opening:
            self._admit()
        if self._joining:
            self._let_in()
        self._make_room()
        self._chunks = self._plan_chunks() if self._computing or self._queued else []
        self._is_busy = bool(self._chunks or self._running)
        if not self._is_busy:
            return
        self._started_s = self._agenda.now_s
        if self._chunks or self.spec.batching.tick_s:
            self._end_after(
                1,
                self.spec.batching.rounded(
                    self.spec.cost.step_s(step_shape(self._chunks, len(self._running), self.running_context_tokens))
                ),
            )
        else:
            self._steps = DecodeSteps(self.spec.cost, len(self._running), self.running_context_tokens)
            num_steps = self._num_unchanged_steps()
            self._end_after(num_steps, self._steps.seconds(num_steps))

    def _end(self) -> None:
        """Takes in what the steps under way have done, and begins the next."""
        self._steps = None
        self.busy_s += self._agenda.now_s - self._started_s
        chunks, self._chunks = self._chunks, []
        self._apply_tokens(self._planned_steps)
        self._apply_chunks(chunks)
        self._stop_those_asked()
        self._begin()

    def _num_unchanged_steps(self) -> int:
        """Steps until a sequence ends, or room does."""
        while self._ends[0][2] not in self._running or self._running[self._ends[0][2]] != self._ends[0][0]:
            heapq.heappop(self._ends)
        return min(self._ends[0][0] - self._num_steps, self.kv_tokens_free // len(self._running))

    def _admit(self) -> None:
        """Gives places to sequences that wait: those that need no room, then the others, first come, first served."""
        for waiting in (self._adopted, self._opening):
            while waiting and self._has_place(waiting[0]):
                job = waiting.popleft()
                self._kv_tokens_used += job.context_tokens - self._prompt_kv.pop(job, 0)
                self._reserved[job] = job.context_tokens
                self._observer.on_reserved(job)

    def _has_place(self, job: Job) -> bool:
        """Whether there is a place in the batch, and room: what was computed here has it."""
        num_sequences = len(self._running) + len(self._reserved)
        if num_sequences >= self.spec.max_num_seqs:
            return False
        if self.spec.batching.counts_contexts and num_sequences:
            num_tokens = self.running_context_tokens + sum(self._reserved.values()) + job.context_tokens
            if num_tokens > self.spec.batching.step_tokens:
                return False
        return job in self._prompt_kv or job.context_tokens + len(self._running) <= self.kv_tokens_free

    def _let_in(self) -> None:
        """Those that joined during the steps before are in the batch."""
        for job in self._joining:
            self._kv_tokens_used += job.context_tokens - self._reserved.pop(job)
            self.running_context_tokens += job.context_tokens
            last_step = self._running[job] = self._num_steps + job.arrival.answer_tokens - job.num_generated
            heapq.heappush(self._ends, (last_step, job.number, job))
            self.cache.keep(job.arrival.block_ids, self.kv_tokens_free)
        self._joining.clear()

    def _make_room(self) -> None:
        """Gives back the youngest while there is no room for all to grow by a token."""
        while self.kv_tokens_free < len(self._running):
            job = next(reversed(self._running))
            self._leave(job)
            self._observer.on_preempted(job)

    def _plan_chunks(self) -> list[tuple[Job, int]]:
        chunks: list[tuple[Job, int]] = []
        sequences = StepShape(num_sequences=len(self._running), num_context_tokens=self.running_context_tokens)
        first = self._computing[0] if self._computing else None
        budget_tokens = prompt_budget(self.spec, self.role, sequences, first)
        prompts = self._in_turn()
        while budget_tokens > 0 and (job := next(prompts, None)) is not None:
            num_tokens = min(job.num_remaining, self.spec.batching.chunk_tokens, budget_tokens)
            chunks.append((job, num_tokens))
            budget_tokens -= num_tokens
        return chunks

    def _in_turn(self) -> Iterator[Job]:
        """Started prompts in order, then new ones, started on demand while there is room for all of them."""
        yield from tuple(self._computing)
        while self._queued and self._queued[0].prompt_tokens <= self.kv_tokens_free:
            yield self._start(self._queued.popleft())

    def _start(self, job: Job) -> Job:
        job.num_computed = self.cache.num_tokens(job.arrival.block_ids, job.prompt_tokens)
        self.pending_prompt_tokens -= job.num_computed
        self._prompt_kv[job] = job.prompt_tokens
        self._kv_tokens_used += job.prompt_tokens
        self._computing.append(job)
        self.cache.shrink(self.kv_tokens_free)
        self._observer.on_prompt_started(job)
        return job

    def _apply_tokens(self, num_steps: int) -> None:
        num_sequences = len(self._running)
        if not num_sequences:
            return
        self._num_steps += num_steps
        self.num_decode_tokens += num_steps * num_sequences
        self._token_wait_s += (self._agenda.now_s - self._started_s) * num_sequences
        self._kv_tokens_used += num_steps * num_sequences
        self.running_context_tokens += num_steps * num_sequences
        while self._ends and self._ends[0][0] <= self._num_steps:
            last_step, _, job = heapq.heappop(self._ends)
            if self._running.get(job) == last_step:
                self._leave(job)
                self._observer.on_finished(job)

    def _apply_chunks(self, chunks: list[tuple[Job, int]]) -> None:
        for job, num_tokens in chunks:
            self.num_prompt_tokens += num_tokens
            if job not in self._computing:  # withdrawn meanwhile
                continue
            self.pending_prompt_tokens -= num_tokens
            job.num_computed += num_tokens
            if job.num_remaining:
                self._observer.on_chunk_done(job)
            else:
                self._computing.remove(job)
                self._observer.on_prompt_done(job)

    def _stop_those_asked(self) -> None:
        for job in [job for job in self._stopping if job in self._running]:
            self._leave(job)
            self._observer.on_stopped(job)

    def _leave(self, job: Job) -> None:
        """Takes a sequence out of the batch; its KV goes with it, but for what is cached."""
        job.num_generated = self.num_generated(job)
        del self._running[job]
        if job in self._stopping:
            self._stopping.remove(job)
        self._kv_tokens_used -= job.context_tokens
        self.running_context_tokens -= job.context_tokens
        self.cache.keep(job.arrival.block_ids, self.kv_tokens_free)
