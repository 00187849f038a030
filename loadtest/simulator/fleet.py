"""The simulated fleet: workers, and what a router does between them. Handoffs, flips and losses happen here.

A flip, where the policy moves work: the worker has its new role after the order's way; prompts that it has not
started are placed again, started ones finish; running sequences are copied to workers with room while they are
generated, stand still for the pause, and go on there; what finds no room stays, and is tried again every second.

A worker that dies takes everything with it that it has; what needed it is placed again with what had been generated
as part of the prompt, as the router does it, and another process of its name starts with an empty cache.
"""

from collections.abc import Callable, Sequence
from functools import partial

from core.errors import OverloadedError
from core.request import Role
from loadtest.arrivals import Arrival
from loadtest.policies.policy import Policy
from loadtest.simulator.agenda import Agenda
from loadtest.simulator.books import Assigned, Books
from loadtest.simulator.crew import Crew
from loadtest.simulator.front_door import FrontDoor
from loadtest.simulator.job import Job
from loadtest.simulator.meter import DemandMeter
from loadtest.simulator.migrations import Migrations
from loadtest.simulator.outcome import Loss
from loadtest.simulator.placement_rows import PlacementRows
from loadtest.simulator.spec import FleetSpec
from loadtest.simulator.tally import Tally
from loadtest.simulator.transfers import Transfers
from loadtest.simulator.view import decode_candidate, fleet_snapshot
from loadtest.simulator.worker import SimWorker
from router.admission.admission import Admission
from router.dispatch.placement import best_decode
from router.dispatch.placement_table import Prospect
from router.dispatch.returned import retry_delay_s
from router.roles.decision import Flip
from router.roles.snapshot import FleetSnapshot, Limits

ROOM_WAIT_S = 60.0  # for room on the decode worker, as in `worker.handoff_client`
FEW = 32  # workers of which looking at each is as fast as the table, whose choice is the same
RETRY_S = 1.0  # between two attempts to find room for sequences that are to leave


class SimFleet:
    """Implements `WorkerObserver` for its workers and `FleetView` for its policy.

    Args:
        spec: the fleet.
        roles: of the workers at the start.
        policy: decides.
        limits: of every request.
        agenda: the clock.
        admission: decides whether a request is accepted; None to accept all.
        jobs: gets every request that comes; None where there would be too many.

    Attributes:
        limits: of every request.
        admission: see above.
        crew: the workers that live.
        tally: what came of requests that have ended.
        flips: changes of roles: when, and which.
        losses: workers that died.
        waiting: requests that no worker could be given.
    """

    def __init__(
        self,
        spec: FleetSpec,
        roles: Sequence[Role],
        policy: Policy,
        limits: Limits,
        agenda: Agenda,
        *,
        admission: Admission | None = None,
        jobs: list[Job] | None = None,
    ) -> None:
        self.limits = limits
        self.admission = admission
        self.crew = Crew(spec, roles, agenda, self)
        self.tally = Tally(limits)
        self.flips: list[tuple[float, Flip]] = []
        self.losses: list[Loss] = []
        self.waiting: list[Job] = []
        self._start_s = spec.start_s
        self._moves = spec.moves
        self._policy = policy
        self._agenda = agenda
        self._jobs = jobs
        self._meter = DemandMeter(limits)
        self._door = FrontDoor(admission)
        self._books = Books(self.crew.changed)
        self._rows = PlacementRows(self.crew, self._books, limits.tpot_s) if spec.num_workers > FEW else None
        self._transfers = Transfers(spec, agenda)
        self._migrations = Migrations(spec.moves, self._transfers, self._books, agenda, self._join)
        self._ordered: set[SimWorker] = set()

    # --- what a policy may look at (FleetView)

    @property
    def now_s(self) -> float:
        """The virtual time."""
        return self._agenda.now_s

    @property
    def workers(self) -> Sequence[SimWorker]:
        """Those that live, ordered by name."""
        return self.crew.workers

    @property
    def prefill_workers(self) -> Sequence[SimWorker]:
        """Those that get prompts."""
        return self.crew.prefill_workers

    @property
    def decode_workers(self) -> Sequence[SimWorker]:
        """Those that get sequences."""
        return self.crew.decode_workers

    def worker(self, name: str) -> SimWorker:
        """The worker of a name, which must live."""
        worker = self.crew.named(name)
        assert worker is not None, f"{name} is dead"
        return worker

    def assigned(self, worker: SimWorker) -> Assigned:
        """What was given to a worker to generate."""
        return self._books.of(worker)

    def present(self, job: Job) -> dict[SimWorker, int]:
        """How many leading tokens of a request's prompt workers have; those that have none are left out."""
        return self.crew.prefixes.present(job)

    def prospect(self, job: Job) -> Prospect | None:
        """What a request is to expect by the router's placement table; None where the fleet is too small for one."""
        return self._rows.prospect(job) if self._rows is not None else None

    def snapshot(self) -> FleetSnapshot:
        """What the role controller sees; what happened until now is told once."""
        return fleet_snapshot(self, self._ordered, self._meter.take(self.now_s))

    # --- what happens to a request

    def arrive(self, arrival: Arrival) -> None:
        """A request comes; it is refused, placed, or waits for a worker."""
        job = Job(self.tally.num_requests, arrival)
        self.tally.num_requests += 1
        if self._jobs is not None:
            self._jobs.append(job)
        self._place(job)
        if not job.is_accepted:
            return
        cached = job.prefill.cache.num_tokens(arrival.block_ids, arrival.prompt_tokens) if job.prefill else 0
        self._meter.arrived(arrival.prompt_tokens - cached)

    @property
    def has_open_jobs(self) -> bool:
        """Whether a request that was accepted has not ended."""
        return bool(self._door.open)

    def close(self) -> None:
        """The run is over: what is open has not ended."""
        for job in self._door.open:
            self.tally.fold(job)
        self._door.open.clear()

    def _place(self, job: Job) -> None:
        chosen = self._policy.place(job, self)
        if isinstance(chosen, OverloadedError):
            job.is_accepted = False
            self.tally.refuse(chosen.reason)
            return
        job.is_accepted = True
        self._door.enter(job)
        if chosen is None:
            self.waiting.append(job)
            return
        job.prefill, decode = chosen
        job.num_places += 1
        if decode is not None:
            self._books.promise(job, decode)
        job.prefill.queue_prompt(job)

    def _place_again(self, job: Job, delay_s: float = 0.0) -> None:
        """Once the router has heard that a request came back, and has waited."""
        self._books.give_up(job)
        job.restart()
        self._agenda.after(self._moves.order_s + delay_s, partial(self._place, job))

    def _place_waiting(self) -> None:
        waiting, self.waiting = self.waiting, []
        for job in waiting:
            self._place(job)

    def _finish(self, job: Job) -> None:
        job.finished_s = self.now_s
        self._door.leave(job)
        self._books.give_up(job)
        self._meter.finished(job)
        self.tally.fold(job)

    def _later(self, delay_s: float, job: Job, event: Callable[[Job], None]) -> None:
        """Has something happen to a request, unless this attempt has been given up by then."""
        attempt = job.attempt

        def happen() -> None:
            if job.attempt == attempt:
                event(job)

        self._agenda.after(delay_s, happen)

    # --- what workers have done (WorkerObserver)

    def on_prompt_started(self, job: Job) -> None:
        """The decode worker is asked for room while the prompt is computed, unless that takes it from its batch."""
        if job.decode is not None and job.decode is not job.prefill and not job.decode.spec.batching.counts_contexts:
            job.decode.open(job)

    def on_chunk_done(self, job: Job) -> None:
        """What is computed travels while the rest is, once there is room for it."""
        if job.is_reserved:
            self._transfers.push(job)

    def on_prompt_done(self, job: Job) -> None:
        """The first token goes out, and the sequence to its decode worker."""
        assert job.prefill is not None, f"request {job.number} was computed by nobody"
        job.is_prompt_done = True
        job.num_generated += 1
        job.num_failures = 0
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
            self._books.promise(job, self._policy.place_decode(job, self))
        assert job.decode is not None, f"request {job.number} is to be generated by nobody"
        if job.is_reserved:
            chunk = min(job.prompt_tokens, job.prefill.spec.batching.chunk_tokens)
            self._later(self._transfers.handoff_s(job, chunk), job, self._hand_over)
        elif job.decode is job.prefill:
            job.prefill.adopt(job)
        else:
            self._await_room(job, job.decode)

    def _await_room(self, job: Job, decode: SimWorker) -> None:
        """The computed prompt keeps its own room meanwhile, so the wait is bounded, as a real worker's is."""

        def give_up(job: Job) -> None:
            if not job.is_reserved:
                assert job.prefill is not None, f"request {job.number} waits nowhere"
                decode.close(job)
                job.prefill.release_prompt(job)
                self._place_again(job)

        if not decode.is_asked(job):
            decode.open(job)
        self._later(ROOM_WAIT_S, job, give_up)

    def on_reserved(self, job: Job) -> None:
        """Room was found: what waited for it goes on."""
        if self._migrations.target_of(job) is not None:
            self._migrations.copy(job)
            return
        assert job.decode is not None, f"a place for request {job.number} was asked for by nobody"
        self._books.reserved(job, job.decode)
        if job.is_prompt_done and job.decode is job.prefill:
            job.is_handed_over = True
            self._door.generated(job)
            job.decode.join(job)
        elif job.is_prompt_done:
            self._later(self._transfers.handoff_s(job, job.prompt_tokens), job, self._hand_over)
        else:
            self._transfers.push(job)

    def on_finished(self, job: Job) -> None:
        """The last token; a copy under way was for nothing."""
        self._migrations.end(job)
        self._finish(job)

    def on_preempted(self, job: Job) -> None:
        """Computed again elsewhere, from where it is."""
        self._migrations.end(job)
        self._place_again(job)

    def on_stopped(self, job: Job) -> None:
        """The tail is copied, then the sequence goes on at its target; without one, who died, it is placed again."""
        if self._migrations.target_of(job) is None:
            self._place_again(job)
        else:
            self._migrations.land(job)

    # --- handoffs and migrations

    def _hand_over(self, job: Job) -> None:
        assert job.prefill is not None, f"request {job.number} comes from nowhere"
        assert job.decode is not None, f"request {job.number} goes nowhere"
        job.is_handed_over = True
        job.prefill.release_prompt(job)
        self._join(job, job.decode)

    def _join(self, job: Job, decode: SimWorker) -> None:
        """It may be sent on at once, when its worker has meanwhile become another half's, or preempted."""
        self._door.generated(job)
        decode.join(job)
        if self._policy.moves_work and not decode.role.serves(Role.DECODE) and job in decode.running:
            self._migrate(job)

    def _migrate(self, job: Job) -> bool:
        """Starts to move a running sequence to a worker that has room; False when there is none."""
        source = job.decode
        assert source is not None, f"request {job.number} runs nowhere"
        job.num_generated = source.num_generated(job)
        present = self.present(job)
        able = [
            decode_candidate(worker, self._books.of(worker), present.get(worker, 0))
            for worker in self.decode_workers
            if worker is not source
        ]
        able = [candidate for candidate in able if not candidate.must_wait(job.context_tokens)]
        if not able:
            return False
        self._migrations.begin(job, self.worker(best_decode(able, job.context_tokens).worker.name))
        return True

    # --- roles

    def look(self) -> None:
        """Asks the policy, and orders what it wants."""
        for flip in self._policy.look(self):
            if (worker := self.living(flip.worker)) is not None:
                self._ordered.add(worker)
                self._agenda.after(self._moves.order_s, partial(self.change, flip))

    def change(self, flip: Flip) -> None:
        """A worker takes a role, now; an order to one that is dead leads to nothing."""
        worker = self.crew.named(flip.worker)
        if worker is None:
            return
        self._ordered.discard(worker)
        if worker.role is flip.role:
            return
        self.crew.changed[worker] = None
        worker.role, worker.since_s = flip.role, self.now_s
        self.flips.append((self.now_s, flip))
        self.crew.regroup()
        if self._policy.moves_work:
            self._move_work(worker)
        self._place_waiting()

    def _move_work(self, worker: SimWorker) -> None:
        """Takes from a worker what has no place in its role."""
        if self.crew.named(worker.id.name) is not worker:  # it died before it was tried again
            return
        if not worker.role.serves(Role.PREFILL):
            for job in worker.take_queued():
                self._place_again(job)
        if not worker.role.serves(Role.DECODE):
            moved = [self._migrate(job) for job in worker.running if self._migrations.target_of(job) is None]
            if not all(moved):
                self._agenda.after(RETRY_S, partial(self._move_work, worker))

    # --- workers that come and go

    def living(self, name: str) -> SimWorker | None:
        """The living process of a worker; None while it has none."""
        return self.crew.named(name)

    def kill(self, worker: SimWorker) -> None:
        """A worker dies, now. Another process of it starts."""
        self.crew.bury(worker)
        self._ordered.discard(worker)
        lost = [job for job in self._door.open if self._lose(job, worker)]
        self.losses.append(Loss(self.now_s, worker.id, len(lost)))
        self._agenda.after(self._start_s, partial(self._start_again, worker))

    def _lose(self, job: Job, worker: SimWorker) -> bool:
        """Places a request again that needed a worker; returns whether it did."""
        if self._migrations.target_of(job) is worker and not self._migrations.is_standing(job):
            self._migrations.end(job)  # it goes on where it is
        needed = {job.decode, self._migrations.target_of(job)} | (set() if job.is_handed_over else {job.prefill})
        if worker not in needed:
            return False
        self._migrations.end(job)
        for other in (job.prefill, job.decode):
            if other is not None and other is not worker and not job.is_handed_over:
                other.withdraw(job)
        job.num_failures += 1
        self._place_again(job, retry_delay_s(job.num_failures))
        return True

    def _start_again(self, dead: SimWorker) -> None:
        self.crew.succeed(dead)
        self._place_waiting()
