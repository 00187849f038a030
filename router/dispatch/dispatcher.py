"""Assigns requests to workers, collects their tokens, and places again what comes back. Runs on the event loop."""

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial

from core.errors import (
    BatonError,
    CancelledRequestError,
    DeadlineError,
    DrainingError,
    InternalError,
    NoWorkerError,
    WorkerLostError,
)
from core.events import ReturnedWork
from core.fair_line import FairLine
from core.fairness import TokenCounters
from core.logs import about
from core.request import HALVES, FinishReason, GenerationRequest, Role
from core.roles import RoleRefusal, RoleState
from core.token_runs import TokenRun
from router import wire
from router.admission.admission import Admission, AdmissionLimits
from router.admission.arrival_rates import ArrivalRates
from router.dispatch.defects import contained
from router.dispatch.fleet_table import FleetTable
from router.dispatch.generation import ActiveGeneration, Attempt, RequestEvent, RequestState
from router.dispatch.ledger import charge, discharge_all, discharge_prompt
from router.dispatch.movements import Movements, recall_for
from router.dispatch.prefix_lookup import prefix_source
from router.dispatch.returned import FINAL_ERRORS, GIVEN_BACK, excused, retry_delay_s, suspect
from router.dispatch.survey import Survey, survey
from router.dispatch.timers import Purpose
from router.dispatch.under_way import UnderWay
from router.dispatch.wakes import Wakes
from router.fleet.fleet import Fleet
from router.fleet.link import WorkerLink
from router.observe.request_times import RequestWatch

logger = logging.getLogger(__name__)


class FleetDispatcher:
    """Implements `router.generation.Dispatcher` over a fleet; also hears what the fleet says (`FleetObserver`).

    Args:
        request_timeout_s: a request that has not ended by then fails, or by its own timeout if that is shorter.
        placement_timeout_s: how long a request that nobody has been given yet waits for a missing role. One that a
            worker has had waits until its deadline: what has been lost is started again, however long that takes.
        max_attempts: placements in a row without a token before a request fails.
        watch: hears what happens to requests.
        limits: what is accepted.
        busy_s: see `Wakes`; where none is given, readers never wait for one another.

    Attributes:
        movements: has running sequences go on at other workers.
    """

    def __init__(
        self,
        *,
        request_timeout_s: float,
        placement_timeout_s: float,
        max_attempts: int,
        watch: RequestWatch,
        limits: AdmissionLimits | None = None,
        busy_s: Callable[[], float] = float,
    ) -> None:
        self._request_timeout_s = request_timeout_s
        self._placement_timeout_s = placement_timeout_s
        self._max_attempts = max_attempts
        self._watch = watch
        self._fleet: Fleet | None = None
        self._admission = Admission(limits or AdmissionLimits())
        self._counters = TokenCounters()
        self._rates = ArrivalRates(watch.now_s)
        self._table = FleetTable(watch.limits.tpot_s)
        self._active = UnderWay()
        self._wakes = Wakes(busy_s)
        self._by_handoff: dict[str, ActiveGeneration] = {}
        self.movements = Movements(lambda: self.fleet, self._active.values, self._by_handoff)

    def bind(self, fleet: Fleet) -> None:
        """Says which fleet; once, before the first request."""
        self._fleet = fleet

    @property
    def fleet(self) -> Fleet:
        """The workers there are."""
        assert self._fleet is not None, "bind() comes before the first request"
        return self._fleet

    @property
    def num_active(self) -> int:
        """Requests accepted and not ended."""
        return len(self._active)

    @property
    def num_waiting(self) -> int:
        """Of these, those that no worker has been given."""
        return sum(generation.state is RequestState.WAITING for generation in self._active.values())

    def oldest_waiting_s(self, now_s: float) -> float:
        """For how long the oldest request without a first token has waited that may not have started.

        Where a worker says that it has no prompt queued, all its prompts have started.
        """
        waiting = (
            generation.times.arrived_s
            for generation in self._active.values()
            if not generation.answer.tokens
            and (generation.attempt is None or generation.attempt.prefill.load.queued_prompts)
        )
        return max(0.0, now_s - min(waiting, default=now_s))

    # --- for front ends (Dispatcher)

    def submit(self, request: GenerationRequest, emitted: Sequence[int] | None = None) -> ActiveGeneration:
        """Accepts a request and places it, now or when workers are there; see `Dispatcher.submit`.

        Raises:
            OverloadedError: it is new, and too much waits before it; nothing was done.
            InvalidRequestError: it is new, and its client has one of the same name under way.
        """
        if emitted is None:
            self._active.check_name(request.tenant, request.name)
        times = self._watch.arrived(request, num_emitted=len(emitted or ()))
        generation = ActiveGeneration(request, self._cancel, times, emitted)
        options = self._survey(generation)
        if emitted is None:
            self._refuse_late(generation, options)
        self._accept(generation)
        self._place(generation, options)
        attempt = generation.attempt
        num_uncached = attempt.open_prompt_tokens if attempt else generation.num_prompt_tokens
        self._rates.add(request.turn, num_uncached)
        generation.times.placed(num_uncached)
        return generation

    def abort(self, request_id: str, tenant: str) -> None:
        """Ends a tenant's request, named by its id or by its client's name for it, as if its client had left.

        Raises:
            UnknownRequestError: the tenant has no such request under way here.
        """
        generation = self._active.find(tenant, request_id)
        self._fail(generation, CancelledRequestError(f"request {generation.request_id} was aborted, as asked"))

    def unready_reason(self) -> str | None:
        """Names the roles that have no worker, and the workers that do not run."""
        missing = [half.value for half in HALVES if not self.fleet.taking(half)]
        if not missing:
            return None
        return f"no {' and no '.join(missing)} worker is attached yet{self.fleet.why_missing()}"

    # --- from the fleet (FleetObserver)

    def on_attached(self, link: WorkerLink) -> None:  # noqa: ARG002 - any worker may be the missing one
        """Places what waits for a worker."""
        self._place_waiting()

    def on_role_state(self, link: WorkerLink, before: RoleState) -> None:
        """Places by the new role from now on, and moves what has no place in it."""
        state = link.role_state
        self._place_waiting()
        if not state.takes(Role.DECODE):
            self.movements.move_away(link)
        elif not before.takes(Role.DECODE):
            self.movements.even_out(link)
        if state.takes(Role.PREFILL) and not before.takes(Role.PREFILL):
            recall_for(self.fleet, link.worker)

    def on_role_refusal(self, link: WorkerLink, refusal: RoleRefusal) -> None:  # noqa: ARG002 - nothing has changed
        """Places what has waited for the answer."""
        self._place_waiting()

    def on_report(self, link: WorkerLink, report: wire.StepReport) -> None:
        """Takes in tokens, then returned work. Words of attempts that have ended are dropped.

        A defect in one request ends that one only: the worker's stream brings the tokens of all others, too.
        """
        for run in report.runs:
            generation = self._by_handoff.get(run.handoff_id)
            if generation is not None:
                contained(self._fail, self._take_run, generation, run)
        for work in report.returned:
            generation = self._by_handoff.get(work.handoff_id)
            if generation is not None:
                contained(self._fail, self._take_returned, generation, link, work)

    def on_lost(self, link: WorkerLink) -> None:
        """Places again everything that was with a lost worker."""
        placed = [generation for generation in self._active.values() if generation.state is RequestState.PLACED]
        for generation in placed:
            if not self.movements.lose(generation, link):
                message = f"worker {link.worker} was lost"
                work = ReturnedWork(generation.placement.handoff_id, "worker_lost", message)
                self._on_returned(generation, excused(generation.placement, work))

    # --- placing

    def _place_waiting(self) -> None:
        if not all(self.fleet.taking(half) for half in HALVES):
            return
        line: FairLine[ActiveGeneration] = FairLine(self._counters)
        for generation in self._active.values():
            if generation.state is RequestState.WAITING:
                line.add(generation.request_id, generation, generation.request.turn)
        while (first := line.first(lambda _: True)) is not None:
            line.remove(first.request_id)
            self._try_place(first)

    def _refuse_late(self, generation: ActiveGeneration, options: Survey) -> None:
        outlook = options.prospect.outlook(self._admission.answers.mean)
        refusal = self._admission.refusal(generation.request.tenant, outlook, self._timeout_s(generation.request))
        if refusal is not None:
            generation.times.refused(options.prospect.num_uncached_tokens, refusal.reason)
            raise refusal

    def _timeout_s(self, request: GenerationRequest) -> float:
        return min(self._request_timeout_s, math.inf if request.timeout_s is None else request.timeout_s)

    def _accept(self, generation: ActiveGeneration) -> None:
        """Opens the books on a new request."""
        request = generation.request
        self._active.add(generation)
        self._admission.waiting.enter(request.request_id, request.tenant)
        self._counters.enter(request.tenant)
        timeout_s = self._timeout_s(request)
        generation.timers.start(Purpose.DEADLINE, timeout_s, partial(self._run_out, generation, timeout_s))

    def _survey(self, generation: ActiveGeneration) -> Survey:
        return survey(self.fleet, self._table, generation, self._rates)

    def _try_place(self, generation: ActiveGeneration) -> None:
        """Places a request if it waits."""
        if generation.state is RequestState.WAITING:
            self._place(generation, self._survey(generation))

    def _place(self, generation: ActiveGeneration, options: Survey) -> None:
        """Places a waiting request; without workers it goes on waiting."""
        chosen = options.prospect.place(
            generation.avoid,
            wanted_in_s=generation.times.left_s(),
            latest_s=self._admission.limits.ttft_s,
            tpot_limit_s=self._watch.limits.tpot_s,
        )
        if chosen is None:
            if generation.num_attempts == 0 and not generation.answer.tokens:  # no worker has had it, at any router
                give_up = partial(self._give_up_waiting, generation)
                generation.timers.start(Purpose.MISSING_ROLE, self._placement_timeout_s, give_up)
            return
        self._assign(generation, self._table.link(chosen[0]), self._table.link(chosen[1]), options)

    def _assign(self, generation: ActiveGeneration, prefill: WorkerLink, decode: WorkerLink, options: Survey) -> None:
        num_tokens, present = generation.num_prompt_tokens, options.present
        source = prefix_source(
            self.fleet,
            self._table,
            prefill,
            present,
            num_tokens,
            avoid=generation.avoid,
            tpot_limit_s=self._watch.limits.tpot_s,
        )
        assignment = generation.next_assignment(prefill, decode, source)
        num_found = (
            present.tokens(self.fleet.prefixes.holder(prefill.worker)) if source is None else source.num_tokens
        )
        num_blocks, num_open = -(-num_tokens // decode.attached.block_tokens), max(1, num_tokens - num_found)
        generation.attempt = Attempt(assignment, prefill, decode, num_blocks, num_open)
        generation.computed_by = prefill
        self._counters.serve(generation.request.tenant, num_prompt_tokens=num_open)
        generation.move(RequestEvent.PLACE)
        generation.timers.stop(Purpose.MISSING_ROLE, Purpose.RETRY)
        self._by_handoff[assignment.handoff_id] = generation
        charge(generation.attempt)
        generation.times.assigned(assignment)
        for link in generation.attempt.told():
            link.assign(assignment)

    def _give_up_waiting(self, generation: ActiveGeneration) -> None:
        reason = self.unready_reason()
        if generation.state is RequestState.WAITING and reason is not None:
            waited = f"waited {self._placement_timeout_s:g} s in vain"
            self._fail(generation, NoWorkerError(f"{reason}; {waited}; see `baton status`"))

    # --- what comes back

    def _take_run(self, generation: ActiveGeneration, run: TokenRun) -> None:
        """Takes in tokens: here and where the prompt was computed they count as served to their tenant."""
        num_new = generation.take(run)
        if not num_new:
            return
        tenant, attempt = generation.request.tenant, generation.placement
        self._counters.serve(tenant, num_answer_tokens=num_new)
        if generation.computed_by is not None:
            generation.computed_by.count_answer_tokens(tenant, num_new)
        if not attempt.is_handed_over:
            self._on_prompt_computed(generation, attempt)
        generation.failures = 0
        generation.times.received(len(generation.answer.tokens), generation.num_cached_tokens)
        self._wakes.add(generation)
        if generation.answer.finish_reason is not None:
            generation.times.answered(generation.answer.finish_reason)
            # When the prefill worker's token was the last, the decode worker still expects the handoff.
            attempt.decode.num_finished += attempt.is_handed_over and not attempt.decode.is_for(Role.DECODE)
            self._end(generation, cancel_workers=not (attempt.is_handed_over or attempt.is_one_token))

    def _on_prompt_computed(self, generation: ActiveGeneration, attempt: Attempt) -> None:
        """The prefill worker has done its part, and with the second token the decode worker has begun its own."""
        attempt.is_handed_over = len(generation.answer.tokens) > attempt.assignment.first_position + 1
        discharge_prompt(attempt)
        if attempt.is_handed_over:
            self._admission.waiting.leave(generation.request_id)

    def _take_returned(self, generation: ActiveGeneration, link: WorkerLink, work: ReturnedWork) -> None:
        """Work has come back, or what was to follow on it."""
        if not self.movements.take_returned(generation, work) and generation.placement.needs(link):
            judged = excused(generation.placement, work)
            if (worker := suspect(generation.placement, link, judged)) is not None:
                generation.avoid.add(worker)
            self._on_returned(generation, judged)

    def _on_returned(self, generation: ActiveGeneration, work: ReturnedWork) -> None:
        """Places a request again, a little later each time it comes back without a new token."""
        generation.times.returned(work.code)
        tags = about(generation.times.tags)
        logger.info("request %s came back: %s: %s", generation.request_id, work.code, work.message, extra=tags)
        if not work.retryable:
            self._fail(generation, FINAL_ERRORS.get(work.code, InternalError)(work.message))
            return
        prefill = generation.placement.prefill
        self._leave_attempt(generation, cancel_workers=True)
        generation.move(RequestEvent.RETURN)
        if work.code in GIVEN_BACK:
            prefill.num_returned += work.code != DrainingError.code
            self._try_place(generation)
            return
        generation.failures += 1
        if generation.failures >= self._max_attempts:
            tried = f"tried {generation.failures} times"
            self._fail(
                generation, WorkerLostError(f"the request could not be served ({tried}); last: {work.message}")
            )
            return
        delay_s = retry_delay_s(generation.failures)
        generation.timers.start(Purpose.RETRY, delay_s, partial(self._try_place, generation))

    # --- ending

    def end_all(self, error: BatonError) -> None:
        """Has all requests fail: this router does not go on with them."""
        for generation in list(self._active.values()):
            self._fail(generation, error)

    def _run_out(self, generation: ActiveGeneration, timeout_s: float) -> None:
        """The time of a request is over."""
        self._fail(
            generation,
            DeadlineError(
                f"the request did not end within {timeout_s:g} s: {generation.progress()}; ask for fewer tokens, or "
                "allow more time"
            ),
        )

    def _cancel(self, generation: ActiveGeneration, *, is_answered: bool) -> None:
        if is_answered:
            self._end(generation, cancel_workers=True)
            generation.times.answered(FinishReason.STOP)
        else:
            self._fail(generation, CancelledRequestError(f"request {generation.request_id} was cancelled"))

    def _fail(self, generation: ActiveGeneration, error: BatonError) -> None:
        if generation.state is not RequestState.ENDED:
            self._end(generation, cancel_workers=True)
            generation.times.failed(error)
            generation.fail(error)

    def _end(self, generation: ActiveGeneration, *, cancel_workers: bool) -> None:
        self._leave_attempt(generation, cancel_workers=cancel_workers)
        generation.move(RequestEvent.END)
        self._active.remove(generation)
        was_generated = not self._admission.waiting.leave(generation.request_id)
        # One that never had a place, and did not end by itself, says nothing about how soon places become free.
        if was_generated or generation.answer.finish_reason is not None:
            self._admission.answers.add(len(generation.answer.tokens))
        self._counters.leave(generation.request.tenant)
        generation.timers.stop(*Purpose)

    def _leave_attempt(self, generation: ActiveGeneration, *, cancel_workers: bool) -> None:
        """Closes the books on the current attempt; what its workers still say is dropped."""
        attempt = generation.attempt
        if attempt is None:
            return
        is_moving = attempt.next is not None
        self.movements.leave_next(attempt)
        generation.attempt = None
        generation.answer.drop_held()
        del self._by_handoff[attempt.handoff_id]
        discharge_all(attempt)
        if cancel_workers or is_moving:
            for link in attempt.told():
                link.cancel(attempt.assignment.handoff_id)
