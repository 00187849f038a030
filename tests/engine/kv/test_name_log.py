"""What a pool says of its names, against names looked up one by one."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from core.blocks import BlockName
from core.kv_events import KvEvents
from engine.kv import name_log
from engine.kv.block_table import BlockTable
from engine.kv.name_log import NameLog
from engine.kv.pool import BlockPool
from tests.builders import small_pool

BLOCK_TOKENS = 4


class Listener(RuleBasedStateMachine):
    """Sequences that begin alike come and go in a small pool; two know its names, one of them now and then anew."""

    @initialize(num_partitions=st.sampled_from([1, 2]), has_host=st.booleans())
    def open(self, num_partitions: int, has_host: bool) -> None:
        self.pool = small_pool(
            8,
            BLOCK_TOKENS,
            enable_prefix_caching=True,
            num_host_blocks=3 if has_host and num_partitions == 1 else 0,
            num_partitions=num_partitions,
        )
        self.tables: list[BlockTable] = []
        self.known: set[BlockName] = set()
        self.known_anew: set[BlockName] = set()
        self.next = 0
        self.is_shown = False  # a snapshot has shown what events have not told

    @rule(path=st.lists(st.integers(0, 1), min_size=1, max_size=5))
    def compute(self, path: list[int]) -> None:
        self.pool.begin_step()
        tokens = [part for part in path for _ in range(BLOCK_TOKENS)]
        table = BlockTable(self.pool, "", tokens)
        if table.try_reserve(len(path), max_shared=len(path)):
            table.adopt(len(path))
            table.publish(len(tokens))
            self.tables.append(table)

    @precondition(lambda self: self.tables)
    @rule(index=st.integers(0, 100))
    def release(self, index: int) -> None:
        self.tables.pop(index % len(self.tables)).release()

    @rule()
    def take(self) -> None:
        events = self.pool.name_log.take()
        assert events.first == self.next
        assert not set(events.stored) & set(events.dropped)
        if not self.is_shown:
            assert not set(events.stored) & self.known, "what was there is not stored"
            assert set(events.dropped) <= self.known, "what was not there is not dropped"
        self.known = (self.known | set(events.stored)) - set(events.dropped)
        self.known_anew = (self.known_anew | set(events.stored)) - set(events.dropped)
        self.next, self.is_shown = events.next, False
        assert self.known == self.known_anew == present(self.pool)

    @rule()
    def begin_anew(self) -> None:
        """From a snapshot; what has changed since the last events comes again."""
        following, names = self.pool.name_log.snapshot()
        assert following == self.next
        assert len(set(names)) == len(names)
        assert set(names) == present(self.pool)
        self.known_anew, self.is_shown = set(names), True

    @invariant()
    def books_balance(self) -> None:
        if hasattr(self, "pool"):
            self.pool.check()


def present(pool: BlockPool) -> set[BlockName]:
    partitions = [set(partition.named) for partition in pool.blocks._partitions]
    return set().union(*partitions, pool.host._slots if pool.host else ())


Listener.TestCase.settings = settings(max_examples=120, stateful_step_count=30)
TestListener = Listener.TestCase


def filled(pool: BlockPool, *tokens: int) -> BlockTable:
    table = BlockTable(pool, "", [token for token in tokens for _ in range(BLOCK_TOKENS)])
    assert table.try_reserve(len(tokens), max_shared=len(tokens))
    table.adopt(len(tokens))
    table.publish(len(tokens) * BLOCK_TOKENS)
    return table


def test_block_that_goes_to_the_host_and_comes_back_is_no_news() -> None:
    pool = small_pool(2, BLOCK_TOKENS, enable_prefix_caching=True, num_host_blocks=2)
    filled(pool, 1, 2).release()
    assert len(pool.name_log.take().stored) == 2
    other = filled(pool, 3)
    assert pool.name_log.take() == KvEvents(2, stored=(other.names[0],))
    other.release()
    pool.begin_step()
    filled(pool, 1, 2).release()
    assert pool.name_log.take().stored == ()


def test_name_in_two_partitions_is_stored_once_and_dropped_with_the_last() -> None:
    pool = small_pool(4, BLOCK_TOKENS, enable_prefix_caching=True, num_partitions=2)
    tables = [BlockTable(pool, "", [1] * BLOCK_TOKENS) for _ in range(2)]
    for table in tables:  # both before either is published, so neither finds the other's
        assert table.try_reserve(1, max_shared=0)
    for table in tables:
        table.publish(BLOCK_TOKENS)
        table.release()
    assert len(pool.name_log.take().stored) == 1
    for partition, num_dropped in ((0, 0), (1, 1)):
        taken = pool.blocks.try_allocate(2, partition=partition)
        assert taken is not None
        assert len(pool.name_log.take().dropped) == num_dropped


def test_changes_that_nobody_asks_for_are_forgotten_and_leave_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_log, "MAX_PENDING", 3)
    names: set[bytes] = set()
    log = NameLog(names.__contains__, lambda: names)
    for name in (b"a", b"b", b"c", b"d", b"e"):
        log.touch(name)
        names.add(name)
    events = log.take()
    assert (events.first, events.stored) == (4, (b"e",))
    assert log.snapshot() == (5, tuple(names))


@pytest.mark.parametrize("was_there", [False, True])
def test_change_that_a_snapshot_has_shown_and_that_is_undone_is_told(was_there: bool) -> None:
    """Whoever got the snapshot knows of the change; whoever did not hears what it knows, which does no harm."""
    names = {b"a"} if was_there else set[bytes]()
    log = NameLog(names.__contains__, lambda: names)
    log.touch(b"a")
    names ^= {b"a"}
    assert log.snapshot() == (0, tuple(names))
    names ^= {b"a"}
    log.touch(b"a")
    assert log.take() == KvEvents(0, stored=tuple(names), dropped=() if was_there else (b"a",))
    log.touch(b"a")
    assert log.take() == KvEvents(1), "once"
