"""A dispatcher in a world of workers that die, change roles, give back, and speak in any order: every reader gets its
answer.

Workers generate what the position says, so a token lost, repeated or moved is seen at once.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field, replace

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from core.errors import BatonError, CancelledRequestError, NoWorkerError, WorkerLostError
from core.events import ReturnedWork, TokenEvent, WorkerLoad
from core.request import HALVES, Assignment, FinishReason, GenerationRequest, Role
from core.roles import RoleState
from core.sampling import SamplingParams
from router.dispatch.dispatcher import FleetDispatcher
from router.dispatch.generation import ActiveGeneration, RequestState
from router.dispatch.returned import MAX_RETRY_S
from router.wire import StepReport
from tests.builders import runs_of
from tests.router.builders import MemoryFleet, RecordingLink, request_watch
from tests.router.dispatch.loop_time import LoopTime, settle

STOP = 9
ROLES = {"p0": Role.PREFILL, "p1": Role.PREFILL, "d0": Role.DECODE, "d1": Role.DECODE}
EXPECTED_ERRORS = (CancelledRequestError, NoWorkerError, WorkerLostError)
MIGRATION_ENDS = ["moves", "moves", "refused", "unknown", "unknown but moves", "dies before", "dies after"]
DRAIN_ROUNDS = 60  # far more than any request needs when nothing goes wrong any more


@dataclass(frozen=True)
class Migration:
    """An order to have a sequence go on elsewhere."""

    handoff_id: str
    new: Assignment


class SimulatedWorker(RecordingLink):
    """A link whose worker gets its orders late and whose reports lie in the stream until they are delivered."""

    def __init__(self, name: str, incarnation: int) -> None:
        super().__init__(name, ROLES[name], incarnation)
        self.orders: deque[tuple[Assignment, int] | str | Migration] = deque()
        self.migrating: list[Migration] = []
        self.work: dict[str, Assignment] = {}
        self.num_generated: dict[str, int] = {}
        self.stream: deque[TokenEvent | ReturnedWork] = deque()

    def assign(self, assignment: Assignment) -> None:
        self.orders.append((assignment, self.role_state.epoch))

    def migrate(self, handoff_id: str, new: Assignment) -> None:
        self.orders.append(Migration(handoff_id, new))

    def recall(self, num_tokens: int) -> None:
        """The world recalls when it likes."""

    def cancel(self, handoff_id: str) -> None:
        self.orders.append(handoff_id)

    def receive(self) -> None:
        match self.orders.popleft():
            case str() as handoff_id:
                self.work.pop(handoff_id, None)
            case Migration() as migration:
                self.migrating.append(migration)
            case assignment, epoch if epoch == self.role_state.epoch:
                self.work[assignment.handoff_id] = assignment
            case assignment, epoch:
                self.stream.append(ReturnedWork(assignment.handoff_id, "stale_epoch", f"{epoch} is stale"))

    def is_computing(self, work: Assignment) -> bool:
        """Whether it has work for the prompt, not for the tokens."""
        return work.prefill.worker == self.worker and work.handoff_id not in self.num_generated


@dataclass
class Reader:
    """A request and what its reader has got."""

    request: GenerationRequest
    answer: list[int]
    generation: ActiveGeneration
    got: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    error: BatonError | None = None
    was_cancelled: bool = False

    @property
    def is_done(self) -> bool:
        return self.finish_reason is not None or self.error is not None

    @property
    def expected_reason(self) -> FinishReason:
        return FinishReason.STOP if self.answer[-1] == STOP else FinishReason.LENGTH


class DispatchWorld(RuleBasedStateMachine):
    """Two workers of each role, which come and go."""

    @initialize()
    def start(self) -> None:
        self.runner = asyncio.Runner()
        self.time = LoopTime(self.runner.get_loop())
        self.fleet = MemoryFleet()
        self.dispatcher = FleetDispatcher(
            request_timeout_s=1e6, placement_timeout_s=5.0, max_attempts=3, watch=request_watch()
        )
        self.dispatcher.bind(self.fleet)
        self.workers: dict[str, SimulatedWorker] = {}
        self.lost: list[SimulatedWorker] = []
        self.incarnation = 0
        self.readers: list[Reader] = []
        self.handed: set[str] = set()  # attempts whose KV the decode worker has
        for name in ROLES:
            self._attach(name)

    # --- what can happen

    @rule(prompt_length=st.integers(1, 9), num_tokens=st.sampled_from([1, 2, 6, 20]), stops=st.booleans())
    def submit(self, prompt_length: int, num_tokens: int, stops: bool) -> None:
        number = len(self.readers)
        answer = [1000 * number + position for position in range(10, 10 + num_tokens)]
        if stops:
            answer[-1] = STOP
        request = GenerationRequest(
            request_id=f"r{number}",
            prompt=tuple(range(20, 20 + prompt_length)),
            max_tokens=num_tokens + 3 * stops,
            sampling=SamplingParams(seed=number),
            stop_token_ids=frozenset({STOP}),
        )

        async def start() -> ActiveGeneration:
            return self.dispatcher.submit(request)

        self.readers.append(Reader(request, answer, self.runner.run(start())))

    @rule(data=st.data())
    def worker_receives_an_order(self, data: st.DataObject) -> None:
        if ready := [worker for worker in self.workers.values() if worker.orders]:
            data.draw(st.sampled_from(ready)).receive()

    @rule(data=st.data())
    def worker_generates(self, data: st.DataObject) -> None:
        if ready := self._generating():
            self._generate(*data.draw(st.sampled_from(ready)))

    @rule(data=st.data(), num_words=st.integers(1, 4))
    def report_arrives(self, data: st.DataObject, num_words: int) -> None:
        if ready := [worker for worker in self.workers.values() if worker.stream]:
            self._deliver(data.draw(st.sampled_from(ready)), num_words)

    @rule(rounds=st.integers(1, 3))
    def nothing_goes_wrong_for_a_while(self, rounds: int) -> None:
        for _ in range(rounds):
            self._round(seconds=0.0)

    @rule(data=st.data(), code=st.sampled_from(["preempted", "handoff_failed", "stale_epoch"]))
    def worker_gives_back(self, data: st.DataObject, code: str) -> None:
        if ready := [(worker, handoff) for worker in self.workers.values() for handoff in worker.work]:
            worker, handoff_id = data.draw(st.sampled_from(ready))
            del worker.work[handoff_id]
            worker.stream.append(ReturnedWork(handoff_id, code, "it came back"))

    @rule(
        name=st.sampled_from(sorted(ROLES)),
        role=st.sampled_from(Role),
        is_cordoned=st.sampled_from([False, False, True]),
    )
    def worker_changes_its_role(self, name: str, role: Role, is_cordoned: bool) -> None:
        if worker := self.workers.get(name):
            self._take_role(worker, RoleState(role, worker.role_state.epoch + 1, is_cordoned))

    @rule(is_role=st.booleans())
    def worker_has_to_let_a_running_sequence_go(self, is_role: bool) -> None:
        """What chance alone brings about too rarely: a long answer that runs, with room for it elsewhere."""
        for name, worker in self.workers.items():
            self._take_role(worker, RoleState(ROLES[name], worker.role_state.epoch + 1))
        self.submit(3, 20, stops=False)
        for _ in range(3):
            self._round(seconds=0.0)
        attempt = self.readers[-1].generation.attempt
        if attempt is not None and attempt.is_handed_over:
            role, epoch = attempt.decode.role_state.role, attempt.decode.role_state.epoch + 1
            self._take_role(attempt.decode, RoleState(Role.PREFILL if is_role else role, epoch, not is_role))

    @rule(data=st.data())
    def worker_gives_back_prompts_that_have_not_started(self, data: st.DataObject) -> None:
        ready = [(w, work) for w in self.workers.values() for work in w.work.values() if w.is_computing(work)]
        if ready:
            worker, work = data.draw(st.sampled_from(ready))
            del worker.work[work.handoff_id]
            code = data.draw(st.sampled_from(["role_changed", "recalled"]))
            worker.stream.append(ReturnedWork(work.handoff_id, code, "not started"))

    @rule(data=st.data(), outcome=st.sampled_from(MIGRATION_ENDS))
    def migration_ends(self, data: st.DataObject, outcome: str) -> None:
        if ready := [(worker, each) for worker in self.workers.values() for each in worker.migrating]:
            worker, migration = data.draw(st.sampled_from(ready))
            if outcome == "dies before":
                self.worker_dies(worker.worker.name)
                return
            self._end_migration(worker, migration, "moves" if outcome == "dies after" else outcome)
            if outcome == "dies after":
                self.worker_dies(worker.worker.name)

    @rule(name=st.sampled_from(sorted(ROLES)))
    def worker_dies(self, name: str) -> None:
        if worker := self.workers.pop(name, None):
            self.fleet.members.remove(worker)
            self.lost.append(worker)

            async def lose() -> None:
                self.dispatcher.on_lost(worker)

            self.runner.run(lose())

    @precondition(lambda self: len(self.workers) < len(ROLES))
    @rule(data=st.data())
    def worker_comes(self, data: st.DataObject) -> None:
        self._attach(data.draw(st.sampled_from(sorted(ROLES.keys() - self.workers.keys()))))

    @rule(data=st.data())
    def client_cancels(self, data: st.DataObject) -> None:
        if self.readers:
            reader = data.draw(st.sampled_from(self.readers))
            reader.was_cancelled = True
            reader.generation.cancel()

    @rule(seconds=st.sampled_from([0.05, 0.5, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.runner.run(self.time.advance(seconds))

    @rule()
    def readers_read(self) -> None:
        for reader in self.readers:
            self._read(reader)

    # --- what always holds

    @invariant()
    def answers_are_exact(self) -> None:
        for reader in self.readers:
            assert reader.got == reader.answer[: len(reader.got)]
            if reader.finish_reason is not None:
                assert (reader.got, reader.finish_reason) == (reader.answer, reader.expected_reason)
            assert reader.error is None or isinstance(reader.error, EXPECTED_ERRORS), reader.error
            assert reader.was_cancelled or not isinstance(reader.error, CancelledRequestError)

    @invariant()
    def books_are_those_of_the_open_attempts(self) -> None:
        attempts = [reader.generation.attempt for reader in self.readers if reader.generation.attempt is not None]
        attempts += [attempt.next for attempt in attempts if attempt.next is not None]
        for worker in (*self.workers.values(), *self.lost):
            decoding = [attempt for attempt in attempts if attempt.decode is worker]
            prompt_tokens = sum(a.open_prompt_tokens for a in attempts if a.prefill is worker)
            num_blocks = sum(a.open_blocks for a in decoding)
            context_tokens = sum(len(a.assignment.prompt) for a in decoding)
            assert worker.books() == (prompt_tokens, len(decoding), num_blocks, context_tokens)

    @invariant()
    def every_request_is_placed_or_has_a_timer_or_has_ended(self) -> None:
        states = [reader.generation.state for reader in self.readers]
        assert self.dispatcher.num_active == len(states) - states.count(RequestState.ENDED)
        attempts = [reader.generation.attempt for reader in self.readers if reader.generation.attempt is not None]
        num_moving = sum(attempt.next is not None for attempt in attempts)
        assert len(self.dispatcher._by_handoff) == states.count(RequestState.PLACED) + num_moving
        for reader in self.readers:
            num_timers = len(reader.generation.timers.running())
            match reader.generation.state:
                case RequestState.ENDED:
                    assert num_timers == 0
                case RequestState.PLACED:
                    assert num_timers == 1
                case RequestState.WAITING:
                    waits_for_role = not all(self.fleet.taking(half) for half in HALVES)
                    is_known = reader.generation.num_attempts > 0
                    assert num_timers >= (1 if waits_for_role and is_known else 2)

    def teardown(self) -> None:
        """Nothing goes wrong any more: everything ends."""
        if not hasattr(self, "runner"):
            return
        for name in sorted(ROLES.keys() - self.workers.keys()):
            self._attach(name)
        for name, worker in self.workers.items():
            self._take_role(worker, RoleState(ROLES[name], worker.role_state.epoch + 1))
        for _ in range(DRAIN_ROUNDS):
            self._round(seconds=MAX_RETRY_S)
            if all(reader.is_done for reader in self.readers):
                break
        assert all(reader.is_done for reader in self.readers), "a request hangs"
        self.answers_are_exact()
        self.every_request_is_placed_or_has_a_timer_or_has_ended()
        assert {worker.books() for worker in (*self.workers.values(), *self.lost)} == {(0, 0, 0, 0)}
        self.runner.close()

    # --- the world

    def _attach(self, name: str) -> None:
        self.incarnation += 1
        worker = SimulatedWorker(name, self.incarnation)
        self.workers[name] = worker
        self.fleet.members.append(worker)

        async def attach() -> None:
            self.dispatcher.on_attached(worker)

        self.runner.run(attach())

    def _generating(self) -> list[tuple[SimulatedWorker, Assignment]]:
        """Work a step can advance: prompts not computed, and sequences whose KV is there."""
        return [
            (worker, work)
            for worker in self.workers.values()
            for work in worker.work.values()
            if worker.is_computing(work) or (work.decode.worker == worker.worker and work.handoff_id in self.handed)
        ]

    def _generate(self, worker: SimulatedWorker, work: Assignment) -> None:
        reader = self.readers[work.sampling.seed]
        emitted = reader.answer[: work.first_position]
        assert work.prompt == (*reader.request.prompt, *emitted), "an attempt does not go on where the answer stands"
        assert work.max_new_tokens == reader.request.max_tokens - work.first_position
        is_prefill = worker.is_computing(work)
        num_generated = 1 if is_prefill else worker.num_generated.get(work.handoff_id, 1) + 1
        position = work.first_position + num_generated - 1
        token_id = reader.answer[position]
        reason = work.finish_reason(token_id, num_generated)
        worker.stream.append(TokenEvent(work.handoff_id, position, token_id, reason))
        if is_prefill and reason is None:
            self.handed.add(work.handoff_id)
        if not is_prefill or work.decode.worker == worker.worker:
            worker.num_generated[work.handoff_id] = num_generated
        if (is_prefill and work.decode.worker != worker.worker) or reason is not None:
            del worker.work[work.handoff_id]

    def _take_role(self, worker: SimulatedWorker, state: RoleState) -> None:
        before, worker.hello = worker.role_state, replace(worker.hello, role_state=state)

        async def tell() -> None:
            self.dispatcher.on_role_state(worker, before)

        self.runner.run(tell())

    def _end_migration(self, worker: SimulatedWorker, migration: Migration, outcome: str) -> None:
        """As a worker does it: it hands over what it runs, or goes on and gives the new attempt back."""
        worker.migrating.remove(migration)
        old, new = migration.handoff_id, migration.new
        target = next((w for w in self.workers.values() if w.worker == new.decode.worker), None)
        is_running = old in worker.work and old in self.handed
        is_announced = target is not None and new.handoff_id in target.work
        if outcome in ("moves", "unknown but moves") and is_running and is_announced:
            self.handed.add(new.handoff_id)
            target.num_generated[new.handoff_id] = worker.num_generated.get(old, 1)
        elif outcome != "unknown" or not is_running:
            worker.stream.append(ReturnedWork(new.handoff_id, "handoff_failed", "it stays"))
            return
        del worker.work[old]
        code = "migrated" if outcome == "moves" else "migration_unknown"
        worker.stream.append(ReturnedWork(old, code, "it has gone"))

    def _deliver(self, worker: SimulatedWorker, num_words: int) -> None:
        words = [worker.stream.popleft() for _ in range(min(num_words, len(worker.stream)))]
        # As on the wire, a report's returned work comes after its tokens.
        returned = [word for word in words if isinstance(word, ReturnedWork)]

        async def report() -> None:
            self.dispatcher.on_report(worker, StepReport(runs_of(words), returned, WorkerLoad()))

        self.runner.run(report())

    def _read(self, reader: Reader) -> None:
        async def read() -> None:
            reading = asyncio.ensure_future(reader.generation.read())
            await settle()
            if not reading.done():
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
                return
            delta = reading.result()
            assert delta.token_ids or delta.finish_reason
            reader.got += delta.token_ids
            reader.finish_reason = delta.finish_reason

        if not reader.is_done:
            try:
                self.runner.run(read())
            except BatonError as error:
                reader.error = error

    def _round(self, seconds: float) -> None:
        for worker in self.workers.values():
            while worker.orders:
                worker.receive()
        for worker in self.workers.values():
            for migration in list(worker.migrating):
                self._end_migration(worker, migration, "moves")
        for worker, work in self._generating():
            self._generate(worker, work)
        for worker in self.workers.values():
            self._deliver(worker, len(worker.stream))
        self.runner.run(self.time.advance(seconds))
        self.readers_read()


TestDispatchWorld = DispatchWorld.TestCase
TestDispatchWorld.settings = settings(max_examples=80, stateful_step_count=60)
