"""A prefill and a decode worker without threads or sockets, and a network between them that does its worst.

Requests arrive late, twice or not at all, in any order, also after their sender has given them up or died; answers
get lost; writes land late, and those of a dead process may still land until its peer has heard of the death.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum, auto
from functools import partial
from typing import Any, TypeVar

from core.clock import ManualClock
from core.errors import BatonError, HandoffError, PeerLostError
from core.ids import WorkerEndpoint, WorkerId
from core.request import Assignment
from decode_worker.half import DecodeHalf
from engine.kv.accounting import BlockState
from engine.kv.pool import BlockPool
from engine.plan import SequenceSlice
from kvtransfer.move import Move, MoveOutcome
from kvtransfer.port import Reservation
from prefill_worker.half import PrefillHalf
from tests.builders import DECODE, PREFILL, ListOutbox, copy_tokens, drawn
from worker.mailbox import Mailbox
from worker.open_moves import OpenMoves

T = TypeVar("T")


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


class StandInEngine:
    """Stores `kv_of` where an engine would store KV, and checks what an engine would attend to."""

    def __init__(self, pool: BlockPool) -> None:
        self.pool = pool
        self.kv = pool.tensor[:, 0, 0, 0].numpy()  # [num_blocks, block_tokens, head_dim]

    def compute(self, piece: SequenceSlice, token_ids: Sequence[int], salt: str) -> None:
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


class Worker:
    """One incarnation of a worker; its half hears of the network through its mailbox."""

    def __init__(self, endpoint: WorkerEndpoint, pool: BlockPool) -> None:
        self.endpoint = endpoint
        self.id = endpoint.worker
        self.pool = pool
        self.engine = StandInEngine(pool)
        self.outbox = ListOutbox()
        self.mailbox = Mailbox()
        self.is_alive = True

    def tick(self) -> None:
        for call in self.mailbox.receive(0.0):
            call()


class Target(Worker):
    """A decode worker."""

    def __init__(self, endpoint: WorkerEndpoint, pool: BlockPool, clock: ManualClock) -> None:
        super().__init__(endpoint, pool)
        self.half = DecodeHalf(pool, self.outbox, clock, max_num_seqs=4)
        self.known_dead: set[WorkerId] = set()
        self.unanswered: list[Request[Any]] = []

    def hear_gone(self, worker: WorkerId) -> None:
        self.known_dead.add(worker)
        self.half.worker_gone(worker)

    def step(self, works: dict[str, Assignment], token: int) -> None:
        self.tick()
        self.pool.begin_step()
        self.half.admit()
        slices = self.half.plan()
        for piece in slices:
            work, sequence = works[piece.sequence_id], self.half._sequences[piece.sequence_id]
            self.engine.compute(piece, (*work.prompt, *sequence.tokens), work.cache_salt)
        self.half.apply(slices, drawn(slices, token))

    def check_owner(self, handoff_id: str, block_ids: Sequence[int]) -> None:
        """Asserts that blocks a write lands in are still held for its handoff."""
        held = {self.pool.blocks.state_of(block_id) for block_id in block_ids}
        assert held <= {BlockState.LEASED, BlockState.QUARANTINED}, f"{handoff_id} wrote into blocks {held}"
        owner = self.half._sequences[handoff_id]
        assert set(block_ids) <= set(owner.blocks.block_ids), "a write landed in another handoff's blocks"


class Request:
    """A call to a target. Its sender hears exactly once: the answer, or that there will be none."""

    def __init__(
        self,
        network: Network,
        target: Target,
        call: Callable[[Callable[[T], None]], None],
        hear: Callable[[T | BatonError], None] | None,
        reject: Callable[[Callable[[T], None]], None] | None = None,
    ) -> None:
        self._network = network
        self._target = target
        self._call = call
        self._hear = hear
        self._reject = reject

    def arrive(self, fate: Fate) -> None:
        if fate in (Fate.LATE, Fate.TWICE):
            self._network.send(Request(self._network, self._target, self._call, None, self._reject).arrive)
        if fate in (Fate.LOST, Fate.LATE) or not self._target.is_alive:
            self.answer(HandoffError("no answer came"))
            return
        self._target.unanswered.append(self)
        call = self._reject if fate is Fate.CORRUPT and self._reject else self._call
        self._target.mailbox.post(partial(call, self.answer))

    def answer(self, result: T | BatonError) -> None:
        hear, self._hear = self._hear, None
        if hear is not None:
            lost = HandoffError("the answer was lost")
            self._network.send(lambda fate: hear(lost if fate is Fate.LOST else result))


class Source(Worker):
    """A prefill worker, and the handoff port of its half."""

    def __init__(
        self,
        endpoint: WorkerEndpoint,
        pool: BlockPool,
        clock: ManualClock,
        network: Network,
        targets: dict[WorkerId, Target],
    ) -> None:
        super().__init__(endpoint, pool)
        self.num_steps = 0
        self.half = PrefillHalf(pool, self, self.outbox, clock, next_step=lambda: self.num_steps + 1)
        self._network = network
        self._targets = targets
        self._moves = OpenMoves()

    def step(self, works: dict[str, Assignment], budget: int, token: int, error: BatonError | None) -> None:
        self.tick()
        self.pool.begin_step()
        slices = self.half.plan(budget)
        assert sum(len(piece.token_ids) for piece in slices) <= budget
        self.num_steps += 1
        if error is not None:
            self.half.fail(slices, error)
            return
        for piece in slices:
            work = works[piece.sequence_id]
            self.engine.compute(piece, work.prompt, work.cache_salt)
        self.half.apply(slices, drawn(slices, token))

    def begin(self, handoff_id: str, target: WorkerEndpoint) -> None:
        def hear(result: Reservation | BatonError) -> None:
            if isinstance(result, BatonError):
                self.mailbox.post(partial(self.half.on_begin_refused, handoff_id, result))
            else:
                self.mailbox.post(partial(self.half.on_begun, handoff_id, result))

        peer = self._targets[target.worker]
        self._network.send(Request(self._network, peer, partial(peer.half.begin, handoff_id, self.id), hear).arrive)

    def write(self, handoff_id: str, target: WorkerEndpoint, write_id: int, move: Move) -> None:
        self._moves.begin(handoff_id)
        peer = self._targets[target.worker]

        def land(fate: Fate) -> None:
            if not self.is_alive and self.id in peer.known_dead:
                return  # what is known to be dead writes no more
            outcome = MoveOutcome(None)
            if not peer.is_alive:
                outcome = MoveOutcome(PeerLostError("the target is dead"))
            else:
                assert move.final_after_step is None or self.num_steps >= move.final_after_step
                peer.check_owner(handoff_id, move.remote_ids)
                copy_tokens(self.pool, peer.pool, move)
                if fate is Fate.LOST:
                    peer.pool.tensor[list(move.remote_ids)] = -1.0
                    outcome = MoveOutcome(HandoffError("the link broke"))
            answer = partial(self.half.on_written, handoff_id, write_id, outcome, 0.0)
            self._moves.end(handoff_id, outcome, partial(self.mailbox.post, answer))

        self._network.send(land)

    def finish(self, handoff_id: str, target: WorkerEndpoint, first_token: int, num_blocks: int) -> None:
        peer = self._targets[target.worker]

        def hear(error: BatonError | None) -> None:
            self.mailbox.post(partial(self.half.on_finished, handoff_id, error, 0.0))

        def commit(error: HandoffError | None, *_: object) -> None:
            if error is not None:
                hear(error)
                return
            call = partial(peer.half.commit, handoff_id, self.id, first_token, num_blocks)
            reject = partial(peer.half.reject, handoff_id, self.id)
            self._network.send(Request(self._network, peer, call, hear, reject).arrive)

        self._moves.when_ended(handoff_id, commit)

    def renew(self, target: WorkerEndpoint, handoff_ids: Sequence[str]) -> None:
        def hear(lost: Sequence[str] | BatonError) -> None:
            if not isinstance(lost, BatonError):
                self.mailbox.post(partial(self.half.on_leases_lost, lost))

        peer = self._targets[target.worker]
        call = partial(peer.half.renew, self.id, tuple(handoff_ids))
        self._network.send(Request(self._network, peer, call, hear).arrive)

    def abort(self, handoff_id: str, target: WorkerEndpoint) -> None:
        """Tried again until it is heard: late and twice, but never lost."""
        self._moves.forget(handoff_id)
        peer = self._targets[target.worker]

        def arrive(fate: Fate) -> None:
            if fate is Fate.TWICE:
                self._network.send(arrive)
            peer.mailbox.post(partial(peer.half.source_ended, handoff_id, self.id))

        self._network.send(arrive)


class World:
    """The workers there are, and those there have been."""

    def __init__(self, make_source_pool: Callable[[], BlockPool], make_target_pool: Callable[[], BlockPool]) -> None:
        self.clock = ManualClock()
        self.network = Network()
        self.targets: dict[WorkerId, Target] = {}
        self._make_source_pool = make_source_pool
        self._make_target_pool = make_target_pool
        self.source = self._new_source(PREFILL)
        self.target = self._new_target(DECODE)

    @property
    def workers(self) -> tuple[Source, Target]:
        return self.source, self.target

    def restart_source(self) -> None:
        """It dies with all it was doing and starts anew; the target hears of that some time."""
        old, target = self.source, self.target
        old.is_alive = False
        old.mailbox = Mailbox()
        self.source = self._new_source(_next_incarnation(old.endpoint))
        self.network.send(lambda _: target.mailbox.post(partial(target.hear_gone, old.id)))

    def restart_target(self) -> None:
        """It dies; who waits for an answer hears that there is none, and the source of the death some time."""
        old, source = self.target, self.source
        old.is_alive = False
        for request in old.unanswered:
            request.answer(HandoffError("the connection broke"))
        self.target = self._new_target(_next_incarnation(old.endpoint))
        for dead in old.known_dead:
            self.target.hear_gone(dead)
        self.network.send(lambda _: source.mailbox.post(partial(source.half.worker_gone, old.id)))

    def _new_source(self, endpoint: WorkerEndpoint) -> Source:
        return Source(endpoint, self._make_source_pool(), self.clock, self.network, self.targets)

    def _new_target(self, endpoint: WorkerEndpoint) -> Target:
        target = Target(endpoint, self._make_target_pool(), self.clock)
        self.targets[endpoint.worker] = target
        return target


def _next_incarnation(endpoint: WorkerEndpoint) -> WorkerEndpoint:
    return replace(endpoint, worker=replace(endpoint.worker, incarnation=endpoint.worker.incarnation + 1))
