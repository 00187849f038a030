"""Workers without threads or sockets, and a network between them that does its worst.

Requests arrive late, twice or not at all, in any order, also after their sender has given them up or died; answers
get lost; writes land late, and those of a dead process may still land until its peer has heard of the death.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum, auto
from functools import partial
from typing import Any, TypeVar

from core.clock import ManualClock
from core.errors import BatonError, HandoffError, PeerLostError, UnknownOutcomeError
from core.events import TokenEvent
from core.ids import WorkerEndpoint, WorkerId
from core.request import Assignment
from decode_worker.half import DecodeHalf
from engine.kv.accounting import BlockState
from engine.kv.pool import BlockPool
from engine.plan import SequenceSlice, StepResult
from kvtransfer.move import Move, MoveOutcome
from kvtransfer.port import HandoffSource, Reservation
from prefill_worker.half import PrefillHalf
from tests.builders import STOP_TOKEN, ListOutbox, copy_tokens
from worker.mailbox import Mailbox
from worker.open_moves import OpenMoves

T = TypeVar("T")

ONE_IN = 20  # tokens of an answer ends it


class Fate(Enum):
    """What becomes of something in flight when its turn comes."""

    FINE = auto()
    LOST = auto()
    """A request never arrives. A write fails, and leaves anything behind."""
    LATE = auto()
    """A request: given up by its sender, and still on its way."""
    TWICE = auto()
    """A request comes once more, at another time; nobody hears the answer to that."""
    CORRUPT = auto()
    """A commit: its checksums do not agree."""


class Network:
    """What is in flight waits until it is picked."""

    def __init__(self) -> None:
        self.in_flight: list[Callable[[Fate], None]] = []

    def send(self, delivery: Callable[[Fate], None]) -> None:
        self.in_flight.append(delivery)

    def deliver(self, index: int, fate: Fate = Fate.FINE) -> None:
        self.in_flight.pop(index)(fate)


def kv_of(token_ids: Sequence[int], salt: str, position: int) -> list[float]:
    """What stands for a token's KV: it depends on the token, on all before it and on the tenant."""
    return [float(hash((tuple(token_ids[: position + 1]), salt)) % 1_000_003), float(position)]


def next_token(token_ids: Sequence[int], salt: str) -> int:
    """What stands for a model: the token after these."""
    number = hash((tuple(token_ids), salt, "next")) % (ONE_IN * STOP_TOKEN)
    return STOP_TOKEN if number < STOP_TOKEN else number % STOP_TOKEN


def request_of(handoff_id: str) -> str:
    """The request that an attempt is of."""
    return handoff_id.partition(".")[0]


class StandInEngine:
    """Stores `kv_of` where an engine would store KV, and checks what an engine would attend to."""

    def __init__(self, pool: BlockPool) -> None:
        self.pool = pool
        self.kv = pool.tensor[:, 0, 0, 0].numpy()  # [num_blocks, block_tokens, head_dim]

    def compute(self, piece: SequenceSlice, token_ids: Sequence[int], salt: str) -> int:
        """Returns the token after the piece."""
        assert tuple(piece.token_ids) == tuple(token_ids[piece.start : piece.end])
        size = self.pool.layout.block_tokens
        for position in range(piece.end):
            block_id, offset = piece.block_ids[position // size], position % size
            if position < piece.start:
                assert self.kv[block_id, offset].tolist() == kv_of(token_ids, salt, position), "KV of something else"
            else:
                # Blocks that leave with this very step are leased already.
                assert self.pool.blocks.state_of(block_id) in (BlockState.RUNNING, BlockState.LEASED)
                assert block_id not in self.pool.blocks._name_of, "a block with a name was written"
                self.kv[block_id, offset] = kv_of(token_ids, salt, position)
        return next_token(token_ids[: piece.end], salt)


class Answers:
    """What the clients have got: every position once, in order, and what the model says."""

    def __init__(self, works: dict[str, Assignment]) -> None:
        self.works = works
        self.tokens: dict[str, list[int]] = {}
        self.ended: set[str] = set()

    def take(self, event: TokenEvent) -> None:
        request = request_of(event.handoff_id)
        work, tokens = self.works[request], self.tokens.setdefault(request, [])
        assert request not in self.ended, f"{event} after the end"
        assert event.position == len(tokens), f"{event} after {len(tokens)} tokens"
        assert event.token_id == next_token((*work.prompt, *tokens), work.cache_salt)
        tokens.append(event.token_id)
        if event.finish_reason is not None:
            self.ended.add(request)


class CheckedOutbox(ListOutbox):
    """An outbox whose tokens are looked at as they come."""

    def __init__(self, answers: Answers) -> None:
        super().__init__()
        self._answers = answers

    def token(self, router_id: str, event: TokenEvent) -> None:
        super().token(router_id, event)
        self._answers.take(event)


class Worker:
    """One incarnation of a worker; its halves hear of the network through its mailbox."""

    def __init__(self, endpoint: WorkerEndpoint, pool: BlockPool, world: "World") -> None:
        self.endpoint = endpoint
        self.id = endpoint.worker
        self.pool = pool
        self.engine = StandInEngine(pool)
        self.outbox = CheckedOutbox(world.answers)
        self.mailbox = Mailbox()
        self.is_alive = True
        self.known_dead: set[WorkerId] = set()
        self.unanswered: list[Request[Any]] = []
        self.num_steps = 0
        self._works = world.works
        ports = NetworkPort(self, world), NetworkPort(self, world)
        # Every other worker copies nothing beforehand, as if all were little.
        at_once = 0 if self.id.incarnation % 2 else pool.num_blocks * pool.block_bytes
        self.decode = DecodeHalf(
            pool, ports[0], self.outbox, world.clock, max_num_seqs=4, stop_and_copy_bytes=at_once
        )
        self.prefill = PrefillHalf(
            pool,
            ports[1],
            self.outbox,
            world.clock,
            next_step=lambda: self.num_steps + 1,
            take_over=self.decode.take_over,
        )
        ports[0].source, ports[1].source = self.decode.migrator, self.prefill

    @property
    def is_idle(self) -> bool:
        return self.prefill.is_idle and self.decode.is_idle

    def tick(self) -> None:
        for call in self.mailbox.receive(0.0):
            call()

    def step(self, budget: int, error: BatonError | None = None) -> None:
        self.tick()
        self.pool.begin_step()
        self.decode.admit()
        decode_slices = self.decode.plan()
        prompt_slices = self.prefill.plan(budget)
        assert sum(len(piece.token_ids) for piece in prompt_slices) <= max(0, budget)
        self.num_steps += 1
        if error is not None:
            self.prefill.fail(prompt_slices, error)
            self.decode.fail(decode_slices, error)
            return
        drawn = {}
        for piece in (*decode_slices, *prompt_slices):
            work = self._works[piece.sequence_id]
            sequence = self.decode._book.sequences.get(piece.sequence_id)
            is_decoding = piece in decode_slices and sequence is not None
            token_ids = (*work.prompt, *sequence.tokens) if is_decoding and sequence else work.prompt
            drawn[piece.sequence_id] = self.engine.compute(piece, token_ids, work.cache_salt)
        self.prefill.apply(prompt_slices, StepResult(drawn))
        self.decode.apply(decode_slices, StepResult(drawn))

    def pass_time(self) -> None:
        for half in (self.prefill, self.decode):
            half.expire()  # type: ignore[attr-defined]
            half.renew_leases()  # type: ignore[attr-defined]

    def hear_gone(self, worker: WorkerId) -> None:
        self.known_dead.add(worker)
        self.prefill.worker_gone(worker)
        self.decode.worker_gone(worker)

    def drop_router(self, router_id: str) -> None:
        self.prefill.drop_router(router_id)
        self.decode.drop_router(router_id)

    def cancel(self, handoff_id: str) -> None:
        self.prefill.cancel(handoff_id)
        self.decode.cancel(handoff_id)

    def check_owner(self, handoff_id: str, block_ids: Sequence[int]) -> None:
        """Asserts that blocks a write lands in are still held for its handoff."""
        held = {self.pool.blocks.state_of(block_id) for block_id in block_ids}
        assert held <= {BlockState.LEASED, BlockState.QUARANTINED}, f"{handoff_id} wrote into blocks {held}"
        owner = self.decode._book.sequences[handoff_id]
        assert set(block_ids) <= set(owner.blocks.block_ids), "a write landed in another handoff's blocks"


class Request:
    """A call to a target. Its sender hears exactly once: the answer, or that there will be none."""

    def __init__(  # noqa: PLR0917 - its few makers stand below
        self,
        network: Network,
        target: Worker,
        call: Callable[[Callable[[T], None]], None],
        hear: Callable[[T | BatonError], None] | None,
        reject: Callable[[Callable[[T], None]], None] | None = None,
        unanswered: type[HandoffError] = HandoffError,
    ) -> None:
        self._network = network
        self._target = target
        self._call = call
        self._hear = hear
        self._reject = reject
        self._unanswered = unanswered

    def arrive(self, fate: Fate) -> None:
        if fate in (Fate.LATE, Fate.TWICE):
            self._network.send(Request(self._network, self._target, self._call, None, self._reject).arrive)
        if fate in (Fate.LOST, Fate.LATE) or not self._target.is_alive:
            self.give_up()
            return
        self._target.unanswered.append(self)
        call = self._reject if fate is Fate.CORRUPT and self._reject else self._call
        self._target.mailbox.post(partial(call, self.answer))

    def give_up(self) -> None:
        self.answer(self._unanswered("no answer came"))

    def answer(self, result: T | BatonError) -> None:
        hear, self._hear = self._hear, None
        if hear is not None:
            lost = self._unanswered("the answer was lost")
            self._network.send(lambda fate: hear(lost if fate is Fate.LOST else result))


class NetworkPort:
    """The handoff port of one half of a worker."""

    def __init__(self, worker: Worker, world: "World") -> None:
        self.source: HandoffSource
        self._worker = worker
        self._network = world.network
        self._workers = world.workers_ever
        self._moves = OpenMoves()

    def begin(self, handoff_id: str, target: WorkerEndpoint, num_tokens: int | None) -> None:
        def hear(result: Reservation | BatonError) -> None:
            if isinstance(result, BatonError):
                self._post(partial(self.source.on_begin_refused, handoff_id, result))
            else:
                self._post(partial(self.source.on_begun, handoff_id, result))

        receiver = self._workers[target.worker].decode.receiver
        self._ask(target, partial(receiver.begin, handoff_id, self._worker.id, num_tokens), hear)

    def write(self, handoff_id: str, target: WorkerEndpoint, write_id: int, move: Move) -> None:
        self._moves.begin(handoff_id)
        me, peer = self._worker, self._workers[target.worker]

        def land(fate: Fate) -> None:
            if not me.is_alive and me.id in peer.known_dead:
                return  # what is known to be dead writes no more
            outcome = MoveOutcome(None)
            if not peer.is_alive:
                outcome = MoveOutcome(PeerLostError("the target is dead"))
            else:
                assert move.final_after_step is None or me.num_steps >= move.final_after_step
                peer.check_owner(handoff_id, move.remote_ids)
                copy_tokens(me.pool, peer.pool, move)
                if fate is Fate.LOST:
                    peer.pool.tensor[list(move.remote_ids)] = -1.0
                    outcome = MoveOutcome(HandoffError("the link broke"))
            answer = partial(self.source.on_written, handoff_id, write_id, outcome, 0.0)
            self._moves.end(handoff_id, outcome, partial(self._post, answer))

        self._network.send(land)

    def finish(self, handoff_id: str, target: WorkerEndpoint, token_ids: Sequence[int], num_blocks: int) -> None:
        receiver = self._workers[target.worker].decode.receiver

        def hear(error: BatonError | None) -> None:
            self._post(partial(self.source.on_finished, handoff_id, error, 0.0))

        def commit(error: HandoffError | None, *_: object) -> None:
            if error is not None:
                hear(error)
                return
            call = partial(receiver.commit, handoff_id, self._worker.id, token_ids, num_blocks)
            reject = partial(receiver.reject, handoff_id, self._worker.id)
            self._ask(target, call, hear, reject, unanswered=UnknownOutcomeError)

        self._moves.when_ended(handoff_id, commit)

    def renew(self, target: WorkerEndpoint, handoff_ids: Sequence[str]) -> None:
        def hear(lost: Sequence[str] | BatonError) -> None:
            if not isinstance(lost, BatonError):
                self._post(partial(self.source.on_leases_lost, lost))

        receiver = self._workers[target.worker].decode.receiver
        self._ask(target, partial(receiver.renew, self._worker.id, tuple(handoff_ids)), hear)

    def abort(self, handoff_id: str, target: WorkerEndpoint) -> None:
        """Tried again until it is heard: late and twice, but never lost."""
        self._moves.forget(handoff_id)
        peer = self._workers[target.worker]

        def arrive(fate: Fate) -> None:
            if fate is Fate.TWICE:
                self._network.send(arrive)
            peer.mailbox.post(partial(peer.decode.receiver.source_ended, handoff_id, self._worker.id))

        self._network.send(arrive)

    def _ask(
        self,
        target: WorkerEndpoint,
        call: Callable[[Callable[[T], None]], None],
        hear: Callable[[T | BatonError], None],
        reject: Callable[[Callable[[T], None]], None] | None = None,
        unanswered: type[HandoffError] = HandoffError,
    ) -> None:
        if target.worker in self._worker.known_dead:
            hear(PeerLostError("the target is known to be dead; it was not asked"))
        else:
            peer = self._workers[target.worker]
            self._network.send(Request(self._network, peer, call, hear, reject, unanswered).arrive)

    def _post(self, call: Callable[[], None]) -> None:
        self._worker.mailbox.post(call)


class World:
    """The workers there are, and those there have been."""

    def __init__(self, endpoints: Sequence[WorkerEndpoint], make_pools: Sequence[Callable[[], BlockPool]]) -> None:
        self.clock = ManualClock()
        self.network = Network()
        self.works: dict[str, Assignment] = {}
        self.answers = Answers(self.works)
        self.workers_ever: dict[WorkerId, Worker] = {}
        self._make_pools = make_pools
        self.workers = [self._new(endpoint, index) for index, endpoint in enumerate(endpoints)]

    def assign(self, router_id: str, work: Assignment, *halves: str) -> None:
        """Orders to the worker of each half, in any order."""
        self.works[work.handoff_id] = work
        for name in halves:
            worker = self.workers_ever[getattr(work, name).worker]
            self.order(worker, partial(getattr(worker, name).assign, router_id, work))

    def order(self, worker: Worker, call: Callable[[], None]) -> None:
        """An order from a router, unless the worker has died before it comes."""
        self.network.send(lambda _: call() if worker.is_alive else None)

    def restart(self, index: int) -> None:
        """A worker dies with all it was doing and starts anew.

        Who waits for an answer of it hears that there is none, and the others of the death some time.
        """
        old = self.workers[index]
        old.is_alive = False
        old.mailbox = Mailbox()
        for request in old.unanswered:
            request.give_up()
        endpoint = replace(old.endpoint, worker=WorkerId(old.id.name, old.id.incarnation + 1))
        new = self.workers[index] = self._new(endpoint, index)
        for dead in old.known_dead:
            new.hear_gone(dead)
        for other in self.workers:
            if other is not new:
                self.network.send(lambda _, other=other: other.mailbox.post(partial(other.hear_gone, old.id)))  # type: ignore[misc]

    def settle(self) -> None:
        """Everything in flight arrives, and what that brings about."""
        for worker in self.workers:
            worker.tick()
        while self.network.in_flight:
            self.network.deliver(0)
            for worker in self.workers:
                worker.tick()

    def _new(self, endpoint: WorkerEndpoint, index: int) -> Worker:
        worker = self.workers_ever[endpoint.worker] = Worker(endpoint, self._make_pools[index](), self)
        return worker
