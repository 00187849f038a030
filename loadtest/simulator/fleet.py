"""The simulated fleet: workers, and what a router does between them. Handoffs, flips and migrations happen here.

A flip, where the policy moves work: the worker has its new role after the order's way; prompts that it has not
started are placed again, started ones finish; running sequences are copied to workers with room while they are
generated, stand still for the pause, and go on there; what finds no room stays, and is tried again every second.
"""

from collections.abc import Sequence
from functools import partial

from core.request import Role
from loadtest.arrivals import Arrival
from loadtest.policies.policy import Policy
from loadtest.simulator.agenda import Agenda
from loadtest.simulator.job import Job
from loadtest.simulator.meter import DemandMeter
from loadtest.simulator.spec import FleetSpec
from loadtest.simulator.view import Assigned, decode_candidate, worker_view
from loadtest.simulator.worker import SimWorker
from router.dispatch.placement import best_decode
from router.roles.decision import Flip
from router.roles.snapshot import FleetSnapshot, Limits

ROOM_WAIT_S = 60.0  # for room on the decode worker, as in `worker.handoff_client`
RETRY_S = 1.0  # between two attempts to find room for sequences that are to leave


class SimFleet:
    """Implements `WorkerObserver` for its workers and `FleetView` for its policy.

    Args:
        spec: the fleet.
        roles: of the workers at the start.
        policy: decides.
        limits: of every request.
        agenda: the clock.

    Attributes:
        limits: of every request.
        jobs: all requests so far, in order of arrival.
        flips: changes of roles: when, and which.
        waiting: requests that no worker could be given.
    """

    def __init__(
        self, spec: FleetSpec, roles: Sequence[Role], policy: Policy, limits: Limits, agenda: Agenda
    ) -> None:
        assert len(roles) == spec.num_workers, f"{len(roles)} roles for {spec.num_workers} workers"
        width = len(str(spec.num_workers - 1))
        self.workers = [
            SimWorker(f"worker-{i:0{width}}", spec.worker, role, agenda, self) for i, role in enumerate(roles)
        ]
        self.jobs: list[Job] = []
        self.flips: list[tuple[float, Flip]] = []
        self.waiting: list[Job] = []
        self._moves = spec.moves
        self._policy = policy
        self.limits = limits
        self._agenda = agenda
        self._meter = DemandMeter(limits)
        self._by_name = {worker.id.name: worker for worker in self.workers}
        self._assigned = {worker: Assigned() for worker in self.workers}
        self._targets: dict[Job, SimWorker] = {}  # of migrations under way
        self._ordered: set[SimWorker] = set()
        self._num_open = 0
        self._regroup()

    # --- what a policy may look at (FleetView)

    @property
    def now_s(self) -> float:
        """The virtual time."""
        return self._agenda.now_s

    def worker(self, name: str) -> SimWorker:
        """The worker of a name."""
        return self._by_name[name]

    def assigned(self, worker: SimWorker) -> Assigned:
        """What was given to a worker to generate."""
        return self._assigned[worker]

    def snapshot(self) -> FleetSnapshot:
        """What the role controller sees; what happened until now is told once."""
        views = [worker_view(w, self._assigned[w], is_changing=self._is_changing(w)) for w in self.workers]
        unstarted = [job for worker in self.workers if (job := worker.oldest_queued) is not None]
        oldest_s = min((job.arrival.at_s for job in (*unstarted, *self.waiting)), default=self.now_s)
        return FleetSnapshot(
            now_s=self.now_s,
            workers=tuple(views),
            demand=self._meter.take(self.now_s),
            limits=self.limits,
            waiting_prompts=len(self.waiting),
            oldest_waiting_s=self.now_s - oldest_s,
        )

    def _is_changing(self, worker: SimWorker) -> bool:
        has_sequences = bool(worker.running or worker.incoming) and not worker.role.serves(Role.DECODE)
        has_prompts = bool(worker.prompts) and not worker.role.serves(Role.PREFILL)
        return worker in self._ordered or has_sequences or has_prompts

    # --- what happens to a request

    def arrive(self, arrival: Arrival) -> None:
        """A request comes."""
        job = Job(len(self.jobs), arrival)
        self.jobs.append(job)
        self._num_open += 1
        self._place(job)
        cached = job.prefill.cache.num_tokens(arrival.block_ids, arrival.prompt_tokens) if job.prefill else 0
        self._meter.arrived(arrival.prompt_tokens - cached)

    @property
    def has_open_jobs(self) -> bool:
        """Whether a request that came has not ended."""
        return self._num_open > 0

    def _place(self, job: Job) -> None:
        chosen = self._policy.place(job, self)
        if chosen is None:
            self.waiting.append(job)
            return
        job.prefill, decode = chosen
        job.num_places += 1
        if decode is not None:
            self._charge(job, decode)
        job.prefill.queue_prompt(job)

    def _place_again(self, job: Job) -> None:
        """Once the router has heard that a request came back."""
        self._discharge(job)
        job.restart()
        self._agenda.after(self._moves.order_s, partial(self._place, job))

    def _charge(self, job: Job, decode: SimWorker) -> None:
        job.decode = decode
        books = self._assigned[decode]
        books.num_sequences += 1
        books.context_tokens += job.prompt_tokens
        books.promised_tokens += job.prompt_tokens

    def _discharge(self, job: Job) -> None:
        if job.decode is None:
            return
        books = self._assigned[job.decode]
        books.num_sequences -= 1
        books.context_tokens -= job.prompt_tokens
        if not job.is_reserved:
            books.promised_tokens -= job.prompt_tokens

    def _finish(self, job: Job) -> None:
        job.finished_s = self.now_s
        self._num_open -= 1
        self._discharge(job)
        self._meter.finished(job)

    # --- what workers have done (WorkerObserver)

    def on_prompt_started(self, job: Job) -> None:
        """The decode worker is asked for room while the prompt is computed, unless that takes it from its batch."""
        if job.decode is not None and job.decode is not job.prefill and not job.decode.spec.batching.counts_contexts:
            job.decode.open(job)

    def on_prompt_done(self, job: Job) -> None:
        """The first token goes out, and the sequence to its decode worker."""
        assert job.prefill is not None, f"request {job.number} was computed by nobody"
        job.is_prompt_done = True
        job.num_generated += 1
        if job.first_token_s is None:
            job.first_token_s = self.now_s
            self._meter.first_token(job)
        if job.num_generated == job.arrival.answer_tokens:
            job.prefill.release_prompt(job)
            if job.decode is not None:
                job.decode.close(job)
            self._finish(job)
            return
        if job.decode is None:
            self._charge(job, self._policy.place_decode(job, self))
        assert job.decode is not None, f"request {job.number} is to be generated by nobody"
        if job.is_reserved:
            chunk = min(job.prompt_tokens, job.prefill.spec.batching.chunk_tokens)
            self._agenda.after(self._moves.copy_s(chunk), partial(self._hand_over, job))
        elif job.decode is job.prefill:
            job.prefill.adopt(job)
        else:
            self._await_room(job, job.decode)

    def _await_room(self, job: Job, decode: SimWorker) -> None:
        """The computed prompt keeps its own room meanwhile, so the wait is bounded, as a real worker's is."""
        attempt = job.num_places

        def give_up() -> None:
            if job.num_places == attempt and decode.is_asked(job) and not job.is_reserved:
                assert job.prefill is not None, f"request {job.number} waits nowhere"
                decode.close(job)
                job.prefill.release_prompt(job)
                self._place_again(job)

        if not decode.is_asked(job):
            decode.open(job)
        self._agenda.after(ROOM_WAIT_S, give_up)

    def on_reserved(self, job: Job) -> None:
        """Room was found: what waited for it goes on."""
        if job in self._targets:
            source = job.decode
            assert source is not None, f"request {job.number} migrates from nowhere"
            self._agenda.after(self._moves.copy_s(job.context_tokens), lambda: self._stop(job, source))
            return
        assert job.decode is not None, f"a place for request {job.number} was asked for by nobody"
        job.is_reserved = True
        self._assigned[job.decode].promised_tokens -= job.prompt_tokens
        if job.is_prompt_done and job.decode is job.prefill:
            job.decode.join(job)
        elif job.is_prompt_done:
            self._agenda.after(self._moves.copy_s(job.prompt_tokens), partial(self._hand_over, job))

    def on_finished(self, job: Job) -> None:
        """The last token; a copy under way was for nothing."""
        self._end_move(job)
        self._finish(job)

    def on_preempted(self, job: Job) -> None:
        """Computed again elsewhere, from where it is."""
        self._end_move(job)
        self._place_again(job)

    def on_stopped(self, job: Job) -> None:
        """The tail is copied, then the sequence goes on at its target."""
        self._agenda.after(self._moves.pause_s, partial(self._land, job))

    # --- handoffs and migrations

    def _hand_over(self, job: Job) -> None:
        assert job.prefill is not None, f"request {job.number} comes from nowhere"
        assert job.decode is not None, f"request {job.number} goes nowhere"
        job.prefill.release_prompt(job)
        self._join(job, job.decode)

    def _join(self, job: Job, decode: SimWorker) -> None:
        """It may be sent on at once, when its worker has meanwhile become another half's, or preempted."""
        decode.join(job)
        if self._policy.moves_work and not decode.role.serves(Role.DECODE) and job in decode.running:
            self._migrate(job)

    def _migrate(self, job: Job) -> bool:
        """Starts to move a running sequence to a worker that has room; False when there is none."""
        source = job.decode
        assert source is not None, f"request {job.number} runs nowhere"
        job.num_generated = source.num_generated(job)
        able = [decode_candidate(w, self._assigned[w], job) for w in self.decode_workers if w is not source]
        able = [candidate for candidate in able if not candidate.must_wait(job.context_tokens)]
        if not able:
            return False
        target = self._targets[job] = self.worker(best_decode(able, job.context_tokens).worker.name)
        self._assigned[target].num_sequences += 1
        self._assigned[target].context_tokens += job.prompt_tokens
        target.open(job)
        return True

    def _stop(self, job: Job, source: SimWorker) -> None:
        if job in self._targets and job in source.running:
            source.stop(job)

    def _land(self, job: Job) -> None:
        source, target = job.decode, self._targets.pop(job)
        assert source is not None, f"request {job.number} came from nowhere"
        self._assigned[source].num_sequences -= 1
        self._assigned[source].context_tokens -= job.prompt_tokens
        job.decode = target
        job.num_migrations += 1
        self._join(job, target)

    def _end_move(self, job: Job) -> None:
        """The sequence is gone from its source before it could move."""
        if (target := self._targets.pop(job, None)) is not None:
            self._assigned[target].num_sequences -= 1
            self._assigned[target].context_tokens -= job.prompt_tokens
            target.close(job)

    # --- roles

    def look(self) -> None:
        """Asks the policy, and orders what it wants."""
        for flip in self._policy.look(self):
            worker = self.worker(flip.worker)
            self._ordered.add(worker)
            self._agenda.after(self._moves.order_s, partial(self.change, flip))

    def change(self, flip: Flip) -> None:
        """A worker takes a role, now."""
        worker = self.worker(flip.worker)
        self._ordered.discard(worker)
        if worker.role is flip.role:
            return
        worker.role, worker.since_s = flip.role, self.now_s
        self.flips.append((self.now_s, flip))
        self._regroup()
        if self._policy.moves_work:
            self._move_work(worker)
        waiting, self.waiting = self.waiting, []
        for job in waiting:
            self._place(job)

    def _move_work(self, worker: SimWorker) -> None:
        """Takes from a worker what has no place in its role."""
        if not worker.role.serves(Role.PREFILL):
            for job in worker.take_queued():
                self._place_again(job)
        if not worker.role.serves(Role.DECODE):
            moved = [self._migrate(job) for job in worker.running if job not in self._targets]
            if not all(moved):
                self._agenda.after(RETRY_S, partial(self._move_work, worker))

    def _regroup(self) -> None:
        self.prefill_workers = [worker for worker in self.workers if worker.role.serves(Role.PREFILL)]
        self.decode_workers = [worker for worker in self.workers if worker.role.serves(Role.DECODE)]
