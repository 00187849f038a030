"""Both halves against each other under any order of messages, any loss, any copy, any cancel, any death.

After every step both pools balance, no write ever lands in a block that is not still held for its handoff, and
whatever a step reads of a sequence's KV, be it computed, written by the source, shared or back from host memory, is
the KV of that sequence's tokens and tenant. At the end no block is held on either side.
"""

import itertools
from dataclasses import replace
from random import Random

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from prefill_worker.sender import WRITE_TIMEOUT_S

from core.errors import InternalError
from core.ids import WorkerId
from core.request import Assignment
from decode_worker.half import ANNOUNCED_S, LEASE_S
from engine.kv.block_table import BlockTable
from engine.kv.pool import BlockPool
from prefill_worker.half import RENEWAL_S
from tests.builders import STOP_TOKEN, assignment, small_pool
from tests.worker.handoff_world import Fate, World

ROUTER = "router-1"
SALTS = ("", "tenant")
POOL_TOKENS = 8  # the least that pools grow by: a block of the largest size
RARELY = ["evict_cached"] * 4 + ["lose_router", "restart_source", "restart_target", "hear_of_others"]
ACTS = (["arrive", "tick", "step_source", "step_target", "assign", "cancel", "pass_time"], [12, 6, 3, 3, 2, 1, 1])
SECONDS = [1.0, *[RENEWAL_S] * 6, WRITE_TIMEOUT_S + 1, LEASE_S + 1, ANNOUNCED_S + 1]
FATES = (list(Fate), [20, 1, 1, 1, 1])
ONE_IN_TWENTY = 0.05


class HandoffProtocol(RuleBasedStateMachine):
    """A prefill and a decode worker with pools too small for the load, and prompts that often begin alike."""

    @initialize(
        source_size=st.integers(4, 8),
        target_size=st.integers(4, 8),
        host_blocks=st.integers(0, 8),
        block_tokens=st.sampled_from([(4, 4), (2, 8), (8, 2)]),  # the last two as 16 and 64
    )
    def start(self, source_size: int, target_size: int, host_blocks: int, block_tokens: tuple[int, int]) -> None:
        def make_pool(size: int, num_tokens: int) -> BlockPool:
            num_blocks = size * POOL_TOKENS // num_tokens
            return small_pool(num_blocks, num_tokens, enable_prefix_caching=True, num_host_blocks=host_blocks)

        self.world = World(
            lambda: make_pool(source_size, block_tokens[0]), lambda: make_pool(target_size, block_tokens[1])
        )
        self.works: dict[str, Assignment] = {}

    @rule(chance=st.randoms(use_true_random=True), num_acts=st.integers(1, 60))
    def act(self, chance: Random, num_acts: int) -> None:
        """Requests, arrivals in any order, steps and cancels; hypothesis only picks the seed of these."""
        for name in chance.choices(*ACTS, k=num_acts):
            getattr(self, name)(chance)
            self.check_pools()

    def assign(self, chance: Random) -> None:
        index, source, target = len(self.works), self.world.source, self.world.target
        work = assignment(f"h{index}", chance.randint(1, 20), chance.randint(1, 12))
        work = replace(work, prefill=source.endpoint, decode=target.endpoint, cache_salt=chance.choice(SALTS))
        own, num_common = tuple(100 * (index % 3) + token_id for token_id in work.prompt), chance.randint(0, 20)
        work = replace(work, prompt=work.prompt[:num_common] + own[num_common:])
        self.works[work.handoff_id] = work
        for worker in self.world.workers:
            self.world.network.send(lambda _, half=worker.half: half.assign(ROUTER, work))  # type: ignore[misc]

    def arrive(self, chance: Random) -> None:
        if num_in_flight := len(self.world.network.in_flight):
            (fate,) = chance.choices(*FATES)
            self.world.network.deliver(chance.randrange(num_in_flight), fate)

    def cancel(self, chance: Random) -> None:
        """A client gives up one of the latest requests."""
        for worker in self.world.workers:
            worker.half.cancel(f"h{len(self.works) - chance.randint(1, 4)}")

    def step_source(self, chance: Random) -> None:
        error = InternalError("out of memory") if chance.random() < ONE_IN_TWENTY else None
        self.world.source.step(self.works, chance.randint(1, 12), chance.randint(0, STOP_TOKEN), error)

    def step_target(self, chance: Random) -> None:
        self.world.target.step(self.works, chance.randint(0, STOP_TOKEN))

    def pass_time(self, chance: Random) -> None:
        self.world.clock.advance(chance.choice(SECONDS))
        self.world.source.half.expire()
        self.world.source.half.renew_leases()
        self.world.target.half.expire()

    def tick(self, _chance: Random | None = None) -> None:
        for worker in self.world.workers:
            worker.tick()

    @rule(rounds=st.integers(1, 12), budget=st.integers(2, 8), token=st.integers(0, STOP_TOKEN))
    def run_undisturbed(self, rounds: int, budget: int, token: int) -> None:
        """What mostly happens: messages in order, and faster than steps."""
        for _ in range(rounds):
            for _ in range(6):
                if self.world.network.in_flight:
                    self.world.network.deliver(0)
                self.tick()
            self.world.source.step(self.works, budget, 0, None)
            self.world.target.step(self.works, token)
            self.check_pools()

    @rule(name=st.sampled_from(RARELY))
    def disturb(self, name: str) -> None:
        getattr(self, name)()

    def check_pools(self) -> None:
        for worker in self.world.workers:
            worker.pool.check()

    def evict_cached(self) -> None:
        """What other tenants' prompts do in between: all but two blocks that nobody uses are evicted."""
        for worker in self.world.workers:
            worker.pool.begin_step()
            taken = worker.pool.blocks.try_allocate(max(0, worker.pool.blocks.num_free - 2))
            assert taken is not None
            worker.pool.blocks.release(taken)

    def lose_router(self) -> None:
        for worker in self.world.workers:
            worker.half.drop_router(ROUTER)

    def restart_source(self) -> None:
        self.world.restart_source()

    def restart_target(self) -> None:
        self.world.restart_target()

    def hear_of_others(self) -> None:
        """Another worker's restart concerns nobody here."""
        self.world.target.half.worker_superseded(WorkerId("prefill-1", 99))
        self.world.source.half.worker_gone(WorkerId("decode-1", 99))

    @invariant()
    def pools_balance(self) -> None:
        self.check_pools()

    @invariant()
    def cached_chains_have_no_gaps(self) -> None:
        """A block without those before it would never be found."""
        for work, worker in itertools.product(self.works.values(), self.world.workers):
            names = BlockTable(worker.pool, work.cache_salt, work.prompt)._names
            is_there = [worker.pool.blocks.find(name) is not None for name in names]
            assert is_there == sorted(is_there, reverse=True)

    @invariant()
    def tokens_are_in_order_and_never_repeated(self) -> None:
        for worker in self.world.workers:
            seen = [(event.handoff_id, event.position) for event in worker.outbox.tokens]
            assert len(seen) == len(set(seen))

    @invariant()
    def work_is_given_back_once(self) -> None:
        for worker in self.world.workers:
            returned = [work.handoff_id for work in worker.outbox.returns]
            assert len(returned) == len(set(returned))

    def teardown(self) -> None:
        """Whatever happened: once everything has arrived and is cancelled, both pools are all free."""
        if not hasattr(self, "world"):
            return
        for _ in range(4):
            self.lose_router()
            self.world.target.half.admit()
            self.tick()
            while self.world.network.in_flight:
                self.world.network.deliver(0)
                self.tick()
        for worker in self.world.workers:
            worker.pool.check()
            assert worker.pool.blocks.num_free == worker.pool.num_blocks
        assert self.world.source.half.is_idle
        assert not self.world.target.half._sequences


TestHandoffProtocol = HandoffProtocol.TestCase
TestHandoffProtocol.settings = settings(max_examples=150, stateful_step_count=25)
