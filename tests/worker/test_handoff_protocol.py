"""Workers against each other under any order of messages, any loss, any copy, any cancel, any death.

Prompts are handed over, sequences migrate, and back, and on. After every step all pools balance, no write ever lands
in a block that is not still held for its handoff, and whatever a step reads of a sequence's KV, be it computed,
written by a peer, shared or back from host memory, is the KV of that sequence's tokens and tenant. Every position of
an answer is generated once, in order, with the token that an undisturbed worker would draw. At the end no block is
held anywhere.
"""

import itertools
from collections import Counter
from dataclasses import replace
from functools import partial
from random import Random

import hypothesis.strategies as st
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from core.errors import InternalError
from core.ids import WorkerEndpoint, WorkerId
from core.request import Assignment
from decode_worker.migrator import MIGRATED, MIGRATION_UNKNOWN, NOT_RUNNING
from decode_worker.receiver import ANNOUNCED_S, LEASE_S
from engine.kv.block_table import BlockTable
from engine.kv.pool import BlockPool
from kvtransfer.sender import RENEWAL_S, WRITE_TIMEOUT_S
from tests.builders import DECODE, PREFILL, assignment, small_pool
from tests.worker.handoff_world import Fate, Worker, World, request_of

ROUTER = "router-1"
SALTS = ("", "tenant")
ENDPOINTS = (PREFILL, DECODE, WorkerEndpoint(WorkerId("decode-1", 1), "127.0.0.1:3"))
POOL_TOKENS = 8  # the least that pools grow by: a block of the largest size
RARELY = ["evict_cached"] * 4 + ["lose_router", "restart", "hear_of_others", "recall"]
ACTS = (
    ["arrive", "tick", "step", "assign", "migrate", "cancel", "pass_time"],
    [24, 8, 8, 2, 4, 1, 1],
)
SECONDS = [1.0, *[RENEWAL_S] * 6, WRITE_TIMEOUT_S + 1, LEASE_S + 1, ANNOUNCED_S + 1]
FATES = (list(Fate), [20, 1, 1, 1, 1])
ONE_IN_TWENTY = 0.05
MAX_ROUNDS = 5000  # far more than any four answers take


def pool_of(num_units: int, block_tokens: int, num_host_blocks: int = 0) -> BlockPool:
    num_blocks = num_units * POOL_TOKENS // block_tokens
    return small_pool(num_blocks, block_tokens, enable_prefix_caching=True, num_host_blocks=num_host_blocks)


def moved(work: Assignment, number: int, target: WorkerEndpoint) -> Assignment:
    """The same work as it goes on elsewhere."""
    new_id = f"{request_of(work.handoff_id)}.{number}"
    return replace(work, handoff_id=new_id, prefill=work.decode, decode=target)


class HandoffProtocol(RuleBasedStateMachine):
    """Three workers with pools too small for the load, and prompts that often begin alike."""

    @initialize(
        num_units=st.tuples(st.integers(4, 8), st.integers(4, 20), st.integers(4, 20)),
        host_blocks=st.integers(0, 8),
        block_tokens=st.sampled_from([(4, 4, 4), (2, 8, 8), (8, 2, 2), (4, 4, 8), (8, 4, 2)]),
    )
    def start(self, num_units: tuple[int, ...], host_blocks: int, block_tokens: tuple[int, int, int]) -> None:
        make_pools = [
            partial(pool_of, num, size, host_blocks) for num, size in zip(num_units, block_tokens, strict=True)
        ]
        self.world = World(ENDPOINTS, make_pools)
        self.works = self.world.works
        self.num_requests = 0
        self.orders: list[tuple[Worker, str, str]] = []  # who was to have which attempt go on as which
        self.cancelled: set[str] = set()

    @rule(chance=st.randoms(use_true_random=True), num_acts=st.integers(1, 90))
    def act(self, chance: Random, num_acts: int) -> None:
        """Requests, arrivals in any order, steps and cancels; hypothesis only picks the seed of these."""
        for name in chance.choices(*ACTS, k=num_acts):
            getattr(self, name)(chance)
            self.check_pools()

    def assign(self, chance: Random) -> None:
        """Mostly from the first worker to one of the others; now and then to the worker itself."""
        index, workers = self.num_requests, self.world.workers
        self.num_requests += 1
        source, target = (chance.choice(workers), chance.choice(workers))
        if chance.random() < 0.7:
            source, target = workers[0], chance.choice(workers[1:])
        work = assignment(f"h{index}", chance.randint(1, 20), chance.randint(1, 30))
        work = replace(work, prefill=source.endpoint, decode=target.endpoint, cache_salt=chance.choice(SALTS))
        own, num_common = tuple(100 * (index % 3) + token_id for token_id in work.prompt), chance.randint(0, 20)
        work = replace(work, prompt=work.prompt[:num_common] + own[num_common:])
        halves = ("prefill",) if source is target else ("prefill", "decode")
        self.world.assign(ROUTER, work, *halves)

    def migrate(self, chance: Random) -> None:
        """Something that runs, or now and then any of the latest attempts, is to go on at any worker."""
        names = [name for worker in self.world.workers for name in worker.decode._batch.running]
        if chance.random() < ONE_IN_TWENTY:
            names = list(self.works)[-6:]
        if not names:
            return
        work = self.works[chance.choice(names)]
        source = self.world.workers_ever[work.decode.worker]
        target = chance.choice(self.world.workers).endpoint
        new = moved(work, len(self.orders) + 1, target)
        if target.worker != source.id:
            self.world.assign(ROUTER, new, "decode")
        ids = work.handoff_id, new.handoff_id
        self.orders.append((source, *ids))
        self.world.order(source, partial(source.decode.migrate, ROUTER, *ids, target))

    def arrive(self, chance: Random) -> None:
        if num_in_flight := len(self.world.network.in_flight):
            (fate,) = chance.choices(*FATES)
            self.world.network.deliver(chance.randrange(num_in_flight), fate)

    def cancel(self, chance: Random) -> None:
        """A router gives up one of the latest attempts."""
        handoff_id = chance.choice(list(self.works)[-6:] or ["nobody"])
        self.cancelled.add(handoff_id)
        for worker in self.world.workers:
            worker.cancel(handoff_id)

    def step(self, chance: Random) -> None:
        error = InternalError("out of memory") if chance.random() < ONE_IN_TWENTY else None
        chance.choice(self.world.workers).step(chance.randint(1, 12), error)

    def pass_time(self, chance: Random) -> None:
        self.world.clock.advance(chance.choice(SECONDS))
        for worker in self.world.workers:
            worker.pass_time()

    def tick(self, _chance: Random | None = None) -> None:
        for worker in self.world.workers:
            worker.tick()

    @rule(rounds=st.integers(1, 12), budget=st.integers(2, 8))
    def run_undisturbed(self, rounds: int, budget: int) -> None:
        """What mostly happens: messages in order, and faster than steps."""
        for _ in range(rounds):
            for _ in range(8):
                if self.world.network.in_flight:
                    self.world.network.deliver(0)
                self.tick()
            for worker in self.world.workers:
                worker.step(budget)
            self.check_pools()

    @rule(name=st.sampled_from(RARELY), index=st.integers(0, 2))
    def disturb(self, name: str, index: int) -> None:
        getattr(self, name)(index)

    def check_pools(self) -> None:
        for worker in self.world.workers:
            worker.pool.check()

    def evict_cached(self, index: int) -> None:
        """What other tenants' prompts do in between: all but two blocks that nobody uses are evicted."""
        pool = self.world.workers[index].pool
        pool.begin_step()
        taken = pool.blocks.try_allocate(max(0, pool.blocks.num_free - 2))
        assert taken is not None
        pool.blocks.release(taken)

    def lose_router(self, _index: int = 0) -> None:
        for worker in self.world.workers:
            worker.drop_router(ROUTER)

    def restart(self, index: int) -> None:
        self.world.restart(index)

    def hear_of_others(self, index: int) -> None:
        """Another worker's restart concerns nobody here."""
        self.world.workers[index].hear_gone(WorkerId("decode-9", 99))

    def recall(self, index: int) -> None:
        """Prompts that have not started go back."""
        self.world.workers[index].prefill.return_queued("recalled", 12)

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
    def work_is_given_back_once(self) -> None:
        for worker in self.world.workers:
            returned = [work.handoff_id for work in worker.outbox.returns]
            assert len(returned) == len(set(returned))

    def teardown(self) -> None:
        """Whatever happened: once everything has arrived and is cancelled, all pools are all free."""
        if not hasattr(self, "world"):
            return
        for _ in range(4):
            self.lose_router()
            for worker in self.world.workers:
                worker.decode.admit()
                worker.tick()
            self.world.settle()
        for worker in self.world.workers:
            worker.pool.check()
            assert worker.pool.blocks.num_free == worker.pool.num_blocks
            assert worker.is_idle
        self.every_order_to_migrate_was_answered_once()

    def every_order_to_migrate_was_answered_once(self) -> None:
        """With the attempt that was to go on, or, for one order of those about it, with the one that ran."""
        given_back = {
            worker.id: {work.handoff_id: work.code for work in worker.outbox.returns} for worker in self.world.workers
        }
        open_orders: Counter[tuple[WorkerId, str]] = Counter()
        for worker, old_id, new_id in self.orders:
            if worker.is_alive and new_id not in given_back[worker.id] and new_id not in self.cancelled:
                open_orders[worker.id, old_id] += 1
        for (worker_id, old_id), num_open in open_orders.items():
            assert num_open == 1
            assert given_back[worker_id][old_id] in (MIGRATED, MIGRATION_UNKNOWN)


TestHandoffProtocol = HandoffProtocol.TestCase
TestHandoffProtocol.settings = settings(max_examples=150, stateful_step_count=25)


class Roamers:
    """A router that has its sequences migrate again as soon as they have arrived."""

    def __init__(self, world: World, chance: Random) -> None:
        self.world = world
        self.chance = chance
        self.current: dict[str, Assignment] = {}
        self.next: dict[str, Assignment] = {}
        self.num_heard: Counter[WorkerId] = Counter()

    def assign(self, work: Assignment) -> None:
        halves = ("prefill",) if work.prefill == work.decode else ("prefill", "decode")
        self.world.assign(ROUTER, work, *halves)
        self.current[work.handoff_id] = work

    def hear(self, worker: Worker) -> None:
        """What has been given back since the last time."""
        new, self.num_heard[worker.id] = (
            worker.outbox.returns[self.num_heard[worker.id] :],
            len(worker.outbox.returns),
        )
        for back in new:
            request = request_of(back.handoff_id)
            if back.code == MIGRATED:
                self.current[request] = self.next.pop(request)
            else:
                assert (back.handoff_id, back.code) == (self.next.pop(request).handoff_id, NOT_RUNNING), back

    def send_on(self) -> None:
        for request, work in self.current.items():
            if request not in self.next and self.chance.random() < 0.2:
                source = self.world.workers_ever[work.decode.worker]
                target = self.chance.choice([endpoint for endpoint in ENDPOINTS if endpoint != work.decode])
                new = self.next[request] = moved(work, len(self.world.works), target)
                self.world.assign(ROUTER, new, "decode")
                source.decode.migrate(ROUTER, work.handoff_id, new.handoff_id, target)


@settings(max_examples=60)
@given(chance=st.randoms(use_true_random=True), block_tokens=st.sampled_from([(4, 4, 4), (2, 8, 8), (8, 4, 2)]))
def test_sequences_that_migrate_to_and_fro_all_the_time_give_whole_answers(
    chance: Random, block_tokens: tuple[int, int, int]
) -> None:
    """Messages come in any order, but all of them; prompts are computed in between."""
    world = World(ENDPOINTS, [partial(pool_of, 200, size) for size in block_tokens])
    router = Roamers(world, chance)
    for index in range(4):
        work = assignment(f"h{index}", chance.randint(1, 20), chance.randint(2, 60))
        router.assign(replace(work, prompt=(index + 1, *work.prompt), decode=chance.choice(ENDPOINTS)))
    for _ in range(MAX_ROUNDS):
        for _ in range(chance.randint(0, 6)):
            if in_flight := world.network.in_flight:
                world.network.deliver(chance.randrange(len(in_flight)))
        worker = chance.choice(world.workers)
        worker.step(5)
        router.hear(worker)
        router.send_on()
        if len(world.answers.ended) == len(router.current):
            break
    assert world.answers.ended == set(router.current)
    assert sum(worker.decode.migrator.stats.num_failed for worker in world.workers) == 0
    world.settle()
    assert all(worker.decode.migrator.is_idle for worker in world.workers)
