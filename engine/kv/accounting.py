"""Who holds which KV block, and which blocks hold what. Ids, counts and names only; the bytes are `engine.kv.pool`'s.

Whoever uses a block has a *hold* on it, of one kind:

    allocate, share ──> RUNNING <────> LEASED ──> QUARANTINED
                           └──── release ┴────────────┘

*running* holders are sequences of this engine. A *leased* block may also be read or written by a peer. A one-sided
transfer cannot be called back, so the hold of an abandoned one is *quarantined* until the transfer is known to have
ended or the peer process to be dead.

A block whose contents are final can be given a *name* (`core.blocks`). From then on nobody writes it, any number of
holders share it, and when the last one lets go it is *cached*: still findable by its name, until it is evicted to
hold something else. A block without a name has one holder, and is *free* without it.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from itertools import chain, islice

from core.blocks import BlockName


class Hold(StrEnum):
    """What a holder uses a block for."""

    RUNNING = "running"
    LEASED = "leased"
    QUARANTINED = "quarantined"


class BlockState(StrEnum):
    """What a block is, by the most binding of its holds: quarantined before leased before running."""

    FREE = "free"
    CACHED = "cached"
    RUNNING = "running"
    LEASED = "leased"
    QUARANTINED = "quarantined"


ALLOWED_MOVES: frozenset[tuple[Hold, Hold]] = frozenset(
    {
        (Hold.RUNNING, Hold.LEASED),
        (Hold.LEASED, Hold.RUNNING),
        (Hold.LEASED, Hold.QUARANTINED),
    }
)

OnEvict = Callable[[Sequence[tuple[int, BlockName]]], None]
"""Hears which blocks are about to lose their name, least recently used first; their contents are still there."""

OnPublish = Callable[[BlockName], None]
"""Hears which name a partition is about to get."""


class BlockAccounting:
    """Allocates, shares and finds blocks; all operations are O(blocks touched).

    Eviction takes the cached block that was let go first. Holders of a block also hold the blocks before it in its
    chain, and let go of the last one first; so a block is always evicted before those it continues.

    Not thread-safe: the worker's loop is its only caller.

    Args:
        num_blocks: blocks in the pool, at least one.
        on_evict: called once per allocation that evicts.
        on_publish: called before a block gets a name that its partition does not have.
        num_partitions: equal parts that the blocks fall into, ids in order. No allocation crosses them, and each
            has a cache of its own.

    Attributes:
        num_evicted: cached blocks that had to make room, since the start.
    """

    def __init__(
        self,
        num_blocks: int,
        on_evict: OnEvict | None = None,
        *,
        on_publish: OnPublish | None = None,
        num_partitions: int = 1,
    ) -> None:
        assert num_blocks > 0, f"a pool of {num_blocks} blocks cannot hold anything"
        assert num_blocks % num_partitions == 0, f"{num_blocks} blocks in {num_partitions} partitions"
        self.num_blocks = num_blocks
        self.num_partitions = num_partitions
        self.num_evicted = 0
        self._on_evict = on_evict
        self._on_publish = on_publish
        self._state = [BlockState.FREE] * num_blocks
        self._counts = dict.fromkeys(BlockState, 0)
        self._counts[BlockState.FREE] = num_blocks
        self._num_holds = {hold: [0] * num_blocks for hold in Hold}
        self._most_binding_first = [
            (self._num_holds[hold], BlockState(hold)) for hold in (Hold.QUARANTINED, Hold.LEASED, Hold.RUNNING)
        ]
        self._name_of: dict[int, BlockName] = {}
        self._blocks_per_partition = num_blocks // num_partitions
        firsts = range(0, num_blocks, self._blocks_per_partition)
        self._partitions = [_Partition(range(first, first + self._blocks_per_partition)) for first in firsts]

    @property
    def num_free(self) -> int:
        """Blocks that can be allocated now: free ones, and cached ones after eviction."""
        return self._counts[BlockState.FREE] + self._counts[BlockState.CACHED]

    @property
    def num_free_together(self) -> int:
        """Blocks that one allocation can take now: those of the emptiest partition."""
        return max(partition.num_free for partition in self._partitions)

    def num_free_in(self, partition: int) -> int:
        """Blocks of one partition that can be allocated now."""
        return self._partitions[partition].num_free

    def partition_of(self, block_id: int) -> int:
        """The partition that a block lies in."""
        return block_id // self._blocks_per_partition

    def first_of(self, partition: int) -> int:
        """The first block of a partition."""
        return partition * self._blocks_per_partition

    def counts(self) -> dict[BlockState, int]:
        """Blocks in each state; the values sum to `num_blocks`."""
        return dict(self._counts)

    def state_of(self, block_id: int) -> BlockState:
        """The state of one block."""
        return self._state[block_id]

    # --- holding

    def try_allocate(
        self, num_blocks: int, hold: Hold = Hold.RUNNING, partition: int | None = None
    ) -> list[int] | None:
        """Takes `num_blocks` blocks without a name, or none at all if there are not enough.

        The caller holds them until it calls `release`. Those freed last are taken first: their memory is in use and
        cached, while the first touch of a page costs more than writing it. Cached blocks are evicted when no others
        are left.

        Args:
            num_blocks: how many.
            hold: what for.
            partition: where they must lie; None for the emptiest.
        """
        if partition is None:
            source = max(self._partitions, key=lambda candidate: candidate.num_free)
        else:
            source = self._partitions[partition]
        if num_blocks > source.num_free:
            return None
        self._evict(source, num_blocks - len(source.free))
        block_ids = [source.free.pop() for _ in range(num_blocks)]
        for block_id in block_ids:
            self._num_holds[hold][block_id] += 1
            self._settle(block_id)
        return block_ids

    def share(self, block_id: int, hold: Hold = Hold.RUNNING) -> None:
        """Takes another hold on a block with a name."""
        assert block_id in self._name_of, f"block {block_id} may still be written; nobody can share it"
        self._num_holds[hold][block_id] += 1
        self._settle(block_id)

    def move(self, block_ids: Iterable[int], source: Hold, target: Hold) -> None:
        """Turns one hold on each block into another kind, as `ALLOWED_MOVES` says."""
        assert (source, target) in ALLOWED_MOVES, f"no hold goes from {source} to {target}"
        for block_id in block_ids:
            self._drop(block_id, source)
            self._num_holds[target][block_id] += 1
            self._settle(block_id)

    def release(self, block_ids: Iterable[int], hold: Hold = Hold.RUNNING) -> None:
        """Lets go of one hold on each block; those of a chain from the last to the first.

        Letting go of a hold that is not there is our bug and asserts.
        """
        for block_id in block_ids:
            self._drop(block_id, hold)
            self._settle(block_id)

    # --- names

    def find(self, name: BlockName, partition: int = 0) -> int | None:
        """A partition's block of that name, cached or in use. To be kept, it must be shared before any allocation."""
        return self._partitions[partition].named.get(name)

    def find_prefix(self, names: Iterable[BlockName], partition: int = 0) -> list[int]:
        """A partition's blocks of the leading names of a chain, as many as it has; to be shared as after `find`."""
        block_ids: list[int] = []
        for name in names:
            if (block_id := self.find(name, partition)) is None:
                break
            block_ids.append(block_id)
        return block_ids

    def has(self, name: BlockName) -> bool:
        """Whether any partition has a block of that name."""
        return any(name in partition.named for partition in self._partitions)

    def names(self) -> Iterator[BlockName]:
        """The names that partitions have; one that several have comes several times."""
        return chain.from_iterable(partition.named for partition in self._partitions)

    def publish(self, block_id: int, name: BlockName) -> int:
        """Names a block whose contents are final, unless another of its partition has that name; returns that one.

        The caller holds the block, and the named ones before it in the chain.
        """
        assert self._state[block_id] is not BlockState.FREE, f"nobody holds block {block_id}"
        assert block_id not in self._name_of, f"block {block_id} has a name already"
        named = self._partitions[self.partition_of(block_id)].named
        if (owner := named.get(name)) is not None:
            return owner
        if self._on_publish is not None:
            self._on_publish(name)
        named[name], self._name_of[block_id] = block_id, name
        return block_id

    def check(self) -> None:
        """Asserts the pool's invariant: every block is in the state its holds and name say, and the counts agree."""
        for block_id, state in enumerate(self._state):
            assert state is self._derived(block_id), f"block {block_id} is {state}, not {self._derived(block_id)}"
            num_holds = sum(held[block_id] for held in self._num_holds.values())
            assert num_holds <= 1 or block_id in self._name_of, f"{num_holds} holders share unnamed block {block_id}"
        for state in BlockState:
            actual = self._state.count(state)
            assert actual == self._counts[state], f"{actual} blocks are {state}, {self._counts[state]} counted"
        assert sum(self._counts.values()) == self.num_blocks
        for index, partition in enumerate(self._partitions):
            mine = range(index * self._blocks_per_partition, (index + 1) * self._blocks_per_partition)
            assert sorted(partition.free) == [i for i in mine if self._state[i] is BlockState.FREE]
            assert sorted(partition.cached) == [i for i in mine if self._state[i] is BlockState.CACHED]
            assert partition.named == {self._name_of[i]: i for i in mine if i in self._name_of}

    # --- inside

    def _evict(self, partition: "_Partition", num_blocks: int) -> None:
        """Turns the `num_blocks` least recently used cached blocks of a partition into free ones."""
        if num_blocks <= 0:
            return
        victims = [(block_id, self._name_of[block_id]) for block_id in islice(partition.cached, num_blocks)]
        if self._on_evict is not None:
            self._on_evict(victims)
        for block_id, name in victims:
            del self._name_of[block_id], partition.named[name]
            self._settle(block_id)
        self.num_evicted += len(victims)

    def _drop(self, block_id: int, hold: Hold) -> None:
        assert self._num_holds[hold][block_id], f"block {block_id} is {self._state[block_id]}, nobody holds it {hold}"
        self._num_holds[hold][block_id] -= 1

    def _derived(self, block_id: int) -> BlockState:
        for num_holds, state in self._most_binding_first:
            if num_holds[block_id]:
                return state
        return BlockState.CACHED if block_id in self._name_of else BlockState.FREE

    def _settle(self, block_id: int) -> None:
        """The only writer of block states: follows holds and names, and keeps the lists of blocks without holders."""
        before, state = self._state[block_id], self._derived(block_id)
        if state is before:
            return
        self._state[block_id] = state
        self._counts[before] -= 1
        self._counts[state] += 1
        partition = self._partitions[self.partition_of(block_id)]
        if before is BlockState.CACHED:
            del partition.cached[block_id]
        if state is BlockState.CACHED:
            partition.cached[block_id] = None
        elif state is BlockState.FREE:
            partition.free.append(block_id)


class _Partition:
    """The blocks of one partition that nobody holds, and those with names.

    Args:
        block_ids: its blocks, all free.
    """

    def __init__(self, block_ids: Sequence[int]) -> None:
        self.free = list(reversed(block_ids))  # taken from the end
        self.cached: OrderedDict[int, None] = OrderedDict()  # evicted from the beginning
        self.named: dict[BlockName, int] = {}

    @property
    def num_free(self) -> int:
        return len(self.free) + len(self.cached)
