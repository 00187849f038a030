"""Both halves against each other under any order of messages, any loss of an answer, any cancel.

The world delivers what the halves order in whatever order hypothesis picks. After every step both pools balance, no
write ever lands in a block that is not still held for its handoff, and whatever a step reads of a sequence's KV, be
it computed, written by the source, shared or back from host memory, is the KV of that sequence's tokens and tenant.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from core.clock import ManualClock
from core.errors import BatonError, HandoffError
from core.ids import WorkerEndpoint, WorkerId
from core.request import Assignment
from decode_worker.half import LEASE_S, DecodeHalf
from engine.kv.accounting import BlockState
from engine.kv.block_table import BlockTable
from engine.kv.pool import BlockPool
from engine.plan import SequenceSlice
from kvtransfer.port import HandoffSource, LastBlocks, Reservation
from prefill_worker.half import WRITE_TIMEOUT_S, PrefillHalf
from tests.builders import NOW, PREFILL, STOP_TOKEN, ListOutbox, assignment, drawn, small_pool

ROUTER = "router-1"
SALTS = ("", "tenant")
BLOCK_TOKENS = 4


class Wire:
    """Carries orders and answers as deliveries that wait until they are picked."""

    def __init__(self) -> None:
        self.source: HandoffSource
        self.decode: DecodeHalf
        self.pools: tuple[BlockPool, BlockPool]
        self.in_flight: list[Callable[[bool], None]] = []  # called with whether the answer, or the write, is lost

    def send(self, delivery: Callable[[bool], None]) -> None:
        self.in_flight.append(delivery)

    def begin(self, handoff_id: str, target: WorkerEndpoint) -> None:
        assert target.worker.name == "decode-0"

        def answer(result: Reservation | BatonError) -> None:
            self.send(lambda is_lost: self._begun(handoff_id, result, is_lost=is_lost))

        self.send(lambda _: self.decode.begin(handoff_id, PREFILL.worker, answer))

    def _begun(self, handoff_id: str, result: Reservation | BatonError, *, is_lost: bool) -> None:
        if is_lost or isinstance(result, BatonError):
            error = result if isinstance(result, BatonError) else HandoffError("the answer was lost")
            self.source.on_begin_refused(handoff_id, error)
        else:
            self.source.on_begun(handoff_id, result)

    def write(self, handoff_id: str, target: WorkerEndpoint, local: Sequence[int], remote: Sequence[int]) -> None:
        assert len(local) == len(remote), target

        def land(is_lost: bool) -> None:
            self.check_owner(handoff_id, remote)
            self.copy(local, remote, is_lost=is_lost)
            self.source.on_written(handoff_id, HandoffError("the link broke") if is_lost else None, 0.0)

        self.send(land)

    def finish(self, handoff_id: str, target: WorkerEndpoint, last: LastBlocks) -> None:
        """The last blocks land, and only then is the commit on its way."""

        def land(is_lost: bool) -> None:
            self.check_owner(handoff_id, last.remote)
            self.copy(last.local, last.remote, is_lost=is_lost)
            if is_lost:
                self.source.on_finished(handoff_id, HandoffError("the link broke"), NOW)
            else:
                self.commit(handoff_id, target, last)

        self.send(land)

    def copy(self, local: Sequence[int], remote: Sequence[int], *, is_lost: bool) -> None:
        """A write that fails leaves anything behind."""
        source, target = self.pools
        for local_id, remote_id in zip(local, remote, strict=True):
            target.tensor[remote_id] = -1.0 if is_lost else source.tensor[local_id]

    def check_owner(self, handoff_id: str, remote: Sequence[int]) -> None:
        """Asserts that blocks a write lands in are still held for its handoff."""
        held = {self.decode._pool.blocks.state_of(block_id) for block_id in remote}
        assert held <= {BlockState.LEASED, BlockState.QUARANTINED}, f"{handoff_id} wrote into blocks {held}"
        if remote:
            owner = self.decode._sequences[handoff_id]
            assert set(remote) <= set(owner.blocks.block_ids), "a write landed in another handoff's blocks"

    def commit(self, handoff_id: str, target: WorkerEndpoint, last: LastBlocks) -> None:
        assert target.worker.name == "decode-0"

        def answer(error: BatonError | None) -> None:
            self.send(
                lambda is_lost: self.source.on_finished(
                    handoff_id, HandoffError("the answer was lost") if is_lost else error, NOW
                )
            )

        self.send(lambda _: self.decode.commit(handoff_id, last.first_token, last.num_blocks, answer))

    def abort(self, handoff_id: str, target: WorkerEndpoint) -> None:
        assert target.worker.name == "decode-0"
        self.send(lambda _: self.decode.source_ended(handoff_id))


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
        for position in range(piece.end):
            block_id, offset = piece.block_ids[position // BLOCK_TOKENS], position % BLOCK_TOKENS
            if position < piece.start:
                assert self.kv[block_id, offset].tolist() == kv_of(token_ids, salt, position), "KV of something else"
            else:
                assert self.pool.blocks.state_of(block_id) is BlockState.RUNNING
                assert block_id not in self.pool.blocks._name_of, "a block with a name was written"
                self.kv[block_id, offset] = kv_of(token_ids, salt, position)


class HandoffProtocol(RuleBasedStateMachine):
    """A prefill and a decode half with pools too small for the load, and prompts that often begin alike."""

    @initialize(prefill_blocks=st.integers(8, 16), decode_blocks=st.integers(8, 16), host_blocks=st.integers(0, 8))
    def start(self, prefill_blocks: int, decode_blocks: int, host_blocks: int) -> None:
        self.clock = ManualClock()
        self.wire = Wire()
        self.prefill_outbox, self.decode_outbox = ListOutbox(), ListOutbox()
        self.prefill_pool, self.decode_pool = (
            small_pool(num_blocks, BLOCK_TOKENS, enable_prefix_caching=True, num_host_blocks=host_blocks)
            for num_blocks in (prefill_blocks, decode_blocks)
        )
        self.prefill_engine, self.decode_engine = StandInEngine(self.prefill_pool), StandInEngine(self.decode_pool)
        self.works: dict[str, Assignment] = {}
        self.prefill = PrefillHalf(self.prefill_pool, self.wire, self.prefill_outbox, self.clock)
        self.decode = DecodeHalf(self.decode_pool, self.decode_outbox, self.clock, max_num_seqs=4)
        self.wire.source, self.wire.decode = self.prefill, self.decode
        self.wire.pools = (self.prefill_pool, self.decode_pool)
        self.num_assigned = 0

    @rule(
        num_prompt_tokens=st.integers(1, 20),
        num_common=st.integers(0, 20),
        max_new_tokens=st.integers(1, 12),
        salt=st.sampled_from(SALTS),
    )
    def assign(self, num_prompt_tokens: int, num_common: int, max_new_tokens: int, salt: str) -> None:
        work = assignment(f"h{self.num_assigned}", num_prompt_tokens, max_new_tokens)
        own = tuple(100 * (self.num_assigned % 3) + token_id for token_id in work.prompt)
        work = replace(work, prompt=work.prompt[:num_common] + own[num_common:], cache_salt=salt)
        self.works[work.handoff_id] = work
        self.num_assigned += 1
        self.wire.send(lambda _: self.prefill.assign(ROUTER, work))
        self.wire.send(lambda _: self.decode.assign(ROUTER, work))

    @precondition(lambda self: self.num_assigned)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        handoff_id = f"h{data.draw(st.integers(0, self.num_assigned - 1))}"
        self.prefill.cancel(handoff_id)
        self.decode.cancel(handoff_id)

    @precondition(lambda self: self.wire.in_flight)
    @rule(data=st.data(), is_lost=st.integers(0, 9).map(lambda n: n == 0))
    def deliver(self, data: st.DataObject, is_lost: bool) -> None:
        index = data.draw(st.integers(0, len(self.wire.in_flight) - 1))
        self.wire.in_flight.pop(index)(is_lost)

    @rule(budget=st.integers(1, 16), token=st.integers(0, STOP_TOKEN))
    def step_prefill(self, budget: int, token: int) -> None:
        self.prefill_pool.begin_step()
        slices = self.prefill.plan(budget)
        assert sum(len(s.token_ids) for s in slices) <= budget
        for piece in slices:
            work = self.works[piece.sequence_id]
            self.prefill_engine.compute(piece, work.prompt, work.cache_salt)
        self.prefill.apply(slices, drawn(slices, token))

    @rule(token=st.integers(0, STOP_TOKEN))
    def step_decode(self, token: int) -> None:
        self.decode_pool.begin_step()
        self.decode.admit()
        slices = self.decode.plan()
        for piece in slices:
            work, sequence = self.works[piece.sequence_id], self.decode._sequences[piece.sequence_id]
            self.decode_engine.compute(piece, (*work.prompt, *sequence.tokens), work.cache_salt)
        self.decode.apply(slices, drawn(slices, token))

    @rule(rounds=st.integers(1, 20), tokens=st.lists(st.integers(0, STOP_TOKEN), min_size=2, max_size=2))
    def run_undisturbed(self, rounds: int, tokens: list[int]) -> None:
        """What mostly happens: messages in order, steps in between."""
        for _ in range(rounds):
            for _ in range(min(4, len(self.wire.in_flight))):
                self.wire.in_flight.pop(0)(False)
            self.step_prefill(8, tokens[0])
            self.step_decode(tokens[1])

    @rule(num_left=st.integers(0, 4))
    def evict_cached(self, num_left: int) -> None:
        """What other tenants' prompts do in between: all but a few blocks that nobody uses are evicted."""
        for pool in (self.prefill_pool, self.decode_pool):
            pool.begin_step()
            taken = pool.blocks.try_allocate(max(0, pool.blocks.num_free - num_left))
            assert taken is not None
            pool.blocks.release(taken)

    @rule(seconds=st.sampled_from([1.0, WRITE_TIMEOUT_S + 1, LEASE_S + 1]))
    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.prefill.expire()
        self.decode.expire()

    @rule()
    def lose_router(self) -> None:
        self.prefill.drop_router(ROUTER)
        self.decode.drop_router(ROUTER)

    @rule()
    def supersede_source(self) -> None:
        """Another worker's restart concerns nobody here."""
        self.decode.worker_superseded(WorkerId("prefill-1", 99))

    @invariant()
    def pools_balance(self) -> None:
        if hasattr(self, "prefill_pool"):
            self.prefill_pool.check()
            self.decode_pool.check()

    @invariant()
    def cached_chains_have_no_gaps(self) -> None:
        """A block without those before it would never be found."""
        if hasattr(self, "prefill_pool"):
            for work, pool in itertools.product(self.works.values(), (self.prefill_pool, self.decode_pool)):
                names = BlockTable(pool, work.cache_salt, work.prompt)._names
                is_there = [pool.blocks.find(name) is not None for name in names]
                assert is_there == sorted(is_there, reverse=True)

    @invariant()
    def tokens_are_in_order_and_never_repeated(self) -> None:
        if hasattr(self, "prefill_pool"):
            for outbox in (self.prefill_outbox, self.decode_outbox):
                seen = [(event.handoff_id, event.position) for event in outbox.tokens]
                assert len(seen) == len(set(seen))

    def teardown(self) -> None:
        """Whatever happened: once everything is delivered and cancelled, both pools are all free."""
        if not hasattr(self, "prefill_pool"):
            return
        for _ in range(3):
            while self.wire.in_flight:
                self.wire.in_flight.pop(0)(False)
            self.lose_router()
            self.decode.admit()
        while self.wire.in_flight:
            self.wire.in_flight.pop(0)(False)
        assert self.prefill_pool.blocks.num_free == self.prefill_pool.num_blocks
        assert self.decode_pool.blocks.num_free == self.decode_pool.num_blocks
        assert self.prefill.is_idle
        assert self.decode.num_running == 0


TestHandoffProtocol = HandoffProtocol.TestCase
TestHandoffProtocol.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
