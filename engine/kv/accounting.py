"""Who holds which KV block. Ids and counts only; the bytes are `engine.kv.pool`'s.

    free ──allocate──> running ──lease──> leased ──release──> free
      └────reserve──────────────────────────^  │
                       running <──join── leased ├──quarantine──> quarantined ──release──> free

*running* blocks are read and written by this engine alone. *leased* ones may also be read or written by a peer.
A one-sided transfer cannot be called back, so blocks whose transfer was abandoned are *quarantined* until the
transfer is known to have ended or the peer process to be dead; only then are they free.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum


class BlockState(StrEnum):
    """What a block is in use for."""

    FREE = "free"
    RUNNING = "running"
    LEASED = "leased"
    QUARANTINED = "quarantined"


ALLOWED_MOVES: frozenset[tuple[BlockState, BlockState]] = frozenset(
    {
        (BlockState.FREE, BlockState.RUNNING),
        (BlockState.FREE, BlockState.LEASED),
        (BlockState.RUNNING, BlockState.LEASED),
        (BlockState.RUNNING, BlockState.FREE),
        (BlockState.LEASED, BlockState.RUNNING),
        (BlockState.LEASED, BlockState.QUARANTINED),
        (BlockState.LEASED, BlockState.FREE),
        (BlockState.QUARANTINED, BlockState.FREE),
    }
)


class BlockAccounting:
    """Allocates block ids and tracks their states; all operations are O(blocks touched).

    Not thread-safe: the worker's loop is its only caller.

    Args:
        num_blocks: blocks in the pool, at least one.
        num_partitions: equal parts that the blocks fall into, ids in order; no allocation crosses them.
    """

    def __init__(self, num_blocks: int, num_partitions: int = 1) -> None:
        assert num_blocks > 0, f"a pool of {num_blocks} blocks cannot hold anything"
        assert num_blocks % num_partitions == 0, f"{num_blocks} blocks in {num_partitions} partitions"
        self.num_blocks = num_blocks
        self.num_partitions = num_partitions
        self.blocks_per_partition = num_blocks // num_partitions
        self._state = [BlockState.FREE] * num_blocks
        self._counts = dict.fromkeys(BlockState, 0)
        self._counts[BlockState.FREE] = num_blocks
        firsts = range(0, num_blocks, self.blocks_per_partition)
        # One list per partition, taken from the end.
        self._free = [list(reversed(range(first, first + self.blocks_per_partition))) for first in firsts]

    @property
    def num_free(self) -> int:
        """Blocks that can be allocated now."""
        return self._counts[BlockState.FREE]

    @property
    def num_free_together(self) -> int:
        """Blocks that one allocation can take now: those of the emptiest partition."""
        return max(len(free) for free in self._free)

    def partition_of(self, block_id: int) -> int:
        """The partition that a block lies in."""
        return block_id // self.blocks_per_partition

    def counts(self) -> dict[BlockState, int]:
        """Blocks in each state; the values sum to `num_blocks`."""
        return dict(self._counts)

    def try_allocate(
        self, num_blocks: int, state: BlockState = BlockState.RUNNING, beside: Sequence[int] = ()
    ) -> list[int] | None:
        """Takes `num_blocks` free blocks of one partition into `state`, or none at all if there are not enough.

        The caller owns them until it calls `release`. Those freed last are taken first: their memory is in use and
        cached, while the first touch of a page costs more than writing it.

        Args:
            num_blocks: how many.
            state: of the blocks from now on.
            beside: blocks of the same sequence, whose partition is taken; without any, the emptiest.
        """
        free = self._free[self.partition_of(beside[0])] if beside else max(self._free, key=len)
        if num_blocks > len(free):
            return None
        block_ids = [free.pop() for _ in range(num_blocks)]
        self._set(block_ids, BlockState.FREE, state)
        return block_ids

    def move(self, block_ids: Sequence[int], source: BlockState, target: BlockState) -> None:
        """Moves blocks from one state to another; both must be as `ALLOWED_MOVES` says.

        Freeing goes through `release`.
        """
        assert target is not BlockState.FREE, "use release() to free blocks"
        self._set(block_ids, source, target)

    def release(self, block_ids: Iterable[int]) -> None:
        """Frees blocks from whatever state they are in. Freeing a free block is our bug and asserts."""
        for block_id in block_ids:
            self._set([block_id], self._state[block_id], BlockState.FREE)
            self._free[self.partition_of(block_id)].append(block_id)

    def state_of(self, block_id: int) -> BlockState:
        """The state of one block."""
        return self._state[block_id]

    def check(self) -> None:
        """Asserts the pool's invariant: every block is in exactly one state and the counts agree."""
        for state in BlockState:
            actual = self._state.count(state)
            assert actual == self._counts[state], f"{actual} blocks are {state}, {self._counts[state]} counted"
        assert sum(self._counts.values()) == self.num_blocks
        free_ids = [block_id for free in self._free for block_id in free]
        assert sorted(free_ids) == [i for i, s in enumerate(self._state) if s is BlockState.FREE]
        assert all(self.partition_of(i) == part for part, free in enumerate(self._free) for i in free)

    def _set(self, block_ids: Sequence[int], source: BlockState, target: BlockState) -> None:
        """The only writer of block states."""
        assert (source, target) in ALLOWED_MOVES, f"no block goes from {source} to {target}"
        for block_id in block_ids:
            assert self._state[block_id] is source, f"block {block_id} is {self._state[block_id]}, expected {source}"
            self._state[block_id] = target
        self._counts[source] -= len(block_ids)
        self._counts[target] += len(block_ids)
