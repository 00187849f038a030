"""Both halves against each other under any order of messages, any loss of an answer, any cancel.

The world delivers what the halves order in whatever order hypothesis picks. After every step both pools balance, and
no write ever lands in a block that is not still held for its handoff.
"""

from collections.abc import Callable, Sequence

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from core.clock import ManualClock
from core.errors import BatonError, HandoffError
from core.ids import WorkerEndpoint, WorkerId
from decode_worker.half import LEASE_S, DecodeHalf
from engine.kv.accounting import BlockState
from kvtransfer.port import HandoffSource, LastBlocks
from prefill_worker.half import WRITE_TIMEOUT_S, PrefillHalf
from tests.builders import NOW, PREFILL, STOP_TOKEN, ListOutbox, assignment, drawn, small_pool

ROUTER = "router-1"


class Wire:
    """Carries orders and answers as deliveries that wait until they are picked."""

    def __init__(self) -> None:
        self.source: HandoffSource
        self.decode: DecodeHalf
        self.in_flight: list[Callable[[bool], None]] = []  # called with whether the answer, or the write, is lost

    def send(self, delivery: Callable[[bool], None]) -> None:
        self.in_flight.append(delivery)

    def begin(self, handoff_id: str, target: WorkerEndpoint) -> None:
        assert target.worker.name == "decode-0"

        def answer(result: list[int] | BatonError) -> None:
            self.send(lambda is_lost: self._begun(handoff_id, result, is_lost=is_lost))

        self.send(lambda _: self.decode.begin(handoff_id, PREFILL.worker, answer))

    def _begun(self, handoff_id: str, result: list[int] | BatonError, *, is_lost: bool) -> None:
        if is_lost or isinstance(result, BatonError):
            error = result if isinstance(result, BatonError) else HandoffError("the answer was lost")
            self.source.on_begin_refused(handoff_id, error)
        else:
            self.source.on_begun(handoff_id, result)

    def write(self, handoff_id: str, target: WorkerEndpoint, local: Sequence[int], remote: Sequence[int]) -> None:
        assert len(local) == len(remote), target

        def land(is_lost: bool) -> None:
            self.check_owner(handoff_id, remote)
            self.source.on_written(handoff_id, HandoffError("the link broke") if is_lost else None, 0.0)

        self.send(land)

    def finish(self, handoff_id: str, target: WorkerEndpoint, last: LastBlocks) -> None:
        """The last blocks land, and only then is the commit on its way."""

        def land(is_lost: bool) -> None:
            self.check_owner(handoff_id, last.remote)
            if is_lost:
                self.source.on_finished(handoff_id, HandoffError("the link broke"), NOW)
            else:
                self.commit(handoff_id, target, last)

        self.send(land)

    def check_owner(self, handoff_id: str, remote: Sequence[int]) -> None:
        """Asserts that blocks a write lands in are still held for its handoff."""
        held = {self.decode._pool.blocks.state_of(block_id) for block_id in remote}
        assert held <= {BlockState.LEASED, BlockState.QUARANTINED}, f"{handoff_id} wrote into blocks {held}"
        if remote:
            owner = self.decode._sequences[handoff_id]
            assert set(remote) <= set(owner.block_ids), "a write landed in another handoff's blocks"

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


class HandoffProtocol(RuleBasedStateMachine):
    """A prefill and a decode half with pools too small for the load."""

    @initialize(prefill_blocks=st.integers(8, 16), decode_blocks=st.integers(8, 16), num_ranks=st.integers(1, 2))
    def start(self, prefill_blocks: int, decode_blocks: int, num_ranks: int) -> None:
        """As many blocks on each rank, in workers whose ranks have sequences of their own."""
        self.clock = ManualClock()
        self.wire = Wire()
        self.prefill_outbox, self.decode_outbox = ListOutbox(), ListOutbox()
        self.prefill_pool, self.decode_pool = (
            small_pool(num_blocks * num_ranks, num_partitions=num_ranks)
            for num_blocks in (prefill_blocks, decode_blocks)
        )
        self.prefill = PrefillHalf(self.prefill_pool, self.wire, self.prefill_outbox, self.clock)
        self.decode = DecodeHalf(self.decode_pool, self.decode_outbox, self.clock, max_num_seqs=4)
        self.wire.source, self.wire.decode = self.prefill, self.decode
        self.num_assigned = 0

    @rule(num_prompt_tokens=st.integers(1, 20), max_new_tokens=st.integers(1, 12))
    def assign(self, num_prompt_tokens: int, max_new_tokens: int) -> None:
        work = assignment(f"h{self.num_assigned}", num_prompt_tokens, max_new_tokens)
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
        slices = self.prefill.plan(budget)
        assert sum(len(s.token_ids) for s in slices) <= budget
        self.prefill.apply(slices, drawn(slices, token))

    @rule(token=st.integers(0, STOP_TOKEN))
    def step_decode(self, token: int) -> None:
        self.decode.admit()
        slices = self.decode.plan()
        self.decode.apply(slices, drawn(slices, token))

    @rule(rounds=st.integers(1, 20), tokens=st.lists(st.integers(0, STOP_TOKEN), min_size=2, max_size=2))
    def run_undisturbed(self, rounds: int, tokens: list[int]) -> None:
        """What mostly happens: messages in order, steps in between."""
        for _ in range(rounds):
            for _ in range(min(4, len(self.wire.in_flight))):
                self.wire.in_flight.pop(0)(False)
            self.step_prefill(8, tokens[0])
            self.step_decode(tokens[1])

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
            self.prefill_pool.blocks.check()
            self.decode_pool.blocks.check()

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
