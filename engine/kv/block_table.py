"""One sequence's KV blocks: how it holds each of them, and which of them have names. Both halves keep such tables."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter

from core.blocks import BlockName
from engine.kv.accounting import BlockState, Hold
from engine.kv.pool import BlockPool


class BlockTable:
    """A sequence's blocks, in the order of its tokens.

        blocks   0 ............ num_named ............ len(block_ids)
                 [ final, shared  )[ this sequence's own, writable  )

    A sequence that holds a named block holds all those before it in the chain, under their names; eviction relies on
    that.

    Args:
        pool: where the blocks are.
        salt: of the tenant; sequences with different salts share nothing.
        token_ids: the prompt.

    Attributes:
        block_ids: the blocks; a named one may take the place of an equal one of this sequence's own.
        num_named: leading blocks that have names.
    """

    def __init__(self, pool: BlockPool, salt: str, token_ids: Iterable[int]) -> None:
        self.block_ids: list[int] = []
        self.num_named = 0
        self._pool = pool
        self._blocks = pool.blocks
        self._partition: int | None = None  # of all blocks, once there are any
        self._holds: list[Hold] = []
        self._chain = pool.chain(salt)
        self._names: list[BlockName] = [] if self._chain is None else self._chain.names
        self.append(token_ids)

    @property
    def names(self) -> Sequence[BlockName]:
        """Of the full blocks of the sequence, in order; none when blocks get no names."""
        return self._names

    def append(self, token_ids: Iterable[int]) -> None:
        """Says how the sequence goes on, which names its further blocks."""
        if self._chain is not None:
            self._chain.extend(token_ids)

    def try_reserve(self, num_blocks: int, *, max_shared: int, hold: Hold = Hold.RUNNING, spare: int = 0) -> bool:
        """Takes the first blocks of the sequence: cached ones as far as there are any, own ones for the rest.

        All lie in one partition: of those with room, the one where most are cached, then the emptiest. The table
        has no blocks yet; when there was no room it can be tried again.

        Args:
            num_blocks: blocks to take in all, at least one.
            max_shared: leading blocks that may be cached ones; they are held as running.
            hold: what the own ones are for.
            spare: blocks that must be free afterwards.

        Returns:
            Whether there was room; otherwise nothing is held.
        """
        for partition in self._candidates(max_shared):
            prefix = self._cached_prefix(max_shared, partition)
            num_own = num_blocks - len(prefix)
            num_revived = sum(self._blocks.state_of(block_id) is BlockState.CACHED for block_id in prefix)
            if num_own + spare + num_revived <= self._blocks.num_free_in(partition):
                self._share(prefix, partition, max_shared)
                has_grown = self.try_grow(num_own, hold)
                assert has_grown, "room was checked"
                return True
        return False

    def try_grow(self, num_blocks: int, hold: Hold = Hold.RUNNING) -> bool:
        """Takes further blocks of the sequence's own, or none at all if there are not enough."""
        block_ids = self._blocks.try_allocate(num_blocks, hold, self._partition)
        if block_ids is None:
            return False
        if block_ids:
            self._partition = self._blocks.partition_of(block_ids[0])
        self.block_ids += block_ids
        self._holds += [hold] * num_blocks
        return True

    def adopt(self, max_shared: int) -> int:
        """Fills the own blocks that come next with what others have computed, for as long as the cache knows more.

        A block that is in the pool takes the place of the own one; a block in the host tier is copied into it, within
        the step's budget. Nobody may be reading or writing the own blocks. They are held as running afterwards.

        Returns:
            `num_named` afterwards; at most `max_shared` unless it was more before.
        """
        while self.num_named < min(max_shared, len(self._names)) and self._adopt_next():
            pass
        return self.num_named

    def is_awaiting_host(self, max_shared: int) -> bool:
        """Whether the next step's `adopt` would bring back more: this step's budget of copies is used up."""
        host, index = self._pool.host, self.num_named
        return host is not None and index < min(max_shared, len(self._names)) and self._names[index] in host

    def publish(self, num_tokens: int) -> None:
        """Says that the KV of the first `num_tokens` tokens is final: full blocks of it get their names.

        Where a name is taken by an equal block, that one takes the place of the own one. If a peer may be reading
        the own one, because it is leased, it stays, and neither it nor those after it get names. Nobody writes the
        blocks concerned.
        """
        num_full = num_tokens // self._pool.layout.block_tokens
        for index in range(self.num_named, min(num_full, len(self._names))):
            if self._holds[index] is Hold.LEASED and self._is_taken(index):
                return
            owner = self._blocks.publish(self.block_ids[index], self._names[index])
            if owner != self.block_ids[index]:
                self._replace(index, owner)
            self.num_named += 1

    def held_as(self, hold: Hold) -> list[int]:
        """The blocks that are held so, in order."""
        return [block_id for block_id, held in zip(self.block_ids, self._holds, strict=True) if held is hold]

    def lease(self, first: int, end: int) -> list[int]:
        """Leases blocks `[first, end)`, which are held as running, to a peer; returns their ids."""
        block_ids = self.block_ids[first:end]
        self._blocks.move(block_ids, Hold.RUNNING, Hold.LEASED)
        self._holds[first:end] = [Hold.LEASED] * len(block_ids)
        return block_ids

    def move(self, source: Hold, target: Hold) -> None:
        """Holds all blocks that are held as `source` as `target` from now on."""
        for index, hold in enumerate(self._holds):
            if hold is source:
                self._blocks.move((self.block_ids[index],), source, target)
                self._holds[index] = target

    def release(self) -> None:
        """Lets go of all blocks, the last one first. Those with names stay cached."""
        backwards = zip(reversed(self.block_ids), reversed(self._holds), strict=True)
        for hold, held in groupby(backwards, key=itemgetter(1)):
            self._blocks.release((block_id for block_id, _ in held), hold)
        self.block_ids, self._holds, self.num_named, self._partition = [], [], 0, None

    # --- inside

    def _candidates(self, max_shared: int) -> list[int]:
        """The partitions, best first."""
        partitions = range(self._blocks.num_partitions)
        if len(partitions) == 1:
            return [0]
        return sorted(
            partitions, key=lambda p: (-len(self._cached_prefix(max_shared, p)), -self._blocks.num_free_in(p))
        )

    def _cached_prefix(self, max_shared: int, partition: int) -> list[int]:
        """The blocks of a partition that hold the beginning of the sequence."""
        return self._blocks.find_prefix(self._names[:max_shared], partition)

    def _share(self, prefix: list[int], partition: int, max_shared: int) -> None:
        self._partition = partition
        for block_id in prefix:
            self._blocks.share(block_id)
        self.block_ids += prefix
        self._holds += [Hold.RUNNING] * len(prefix)
        self.num_named = len(prefix)
        if self._pool.host is not None:  # lest the allocation that follows drops what is to come back
            self._pool.host.touch(self._names[self.num_named : max_shared])

    def _adopt_next(self) -> bool:
        index = self.num_named
        name = self._names[index]
        if (block_id := self._blocks.find(name, self._blocks.partition_of(self.block_ids[index]))) is not None:
            self._replace(index, block_id)
        elif self._pool.try_restore(name, self.block_ids[index]):
            self._run(index)
            self._blocks.publish(self.block_ids[index], name)
        else:
            return False
        self.num_named += 1
        return True

    def _is_taken(self, index: int) -> bool:
        """Whether a block of the same partition has the name."""
        partition = self._blocks.partition_of(self.block_ids[index])
        return self._blocks.find(self._names[index], partition) is not None

    def _replace(self, index: int, block_id: int) -> None:
        """Puts a named block in the place of an own one."""
        self._blocks.share(block_id)
        self._blocks.release((self.block_ids[index],), self._holds[index])
        self.block_ids[index], self._holds[index] = block_id, Hold.RUNNING

    def _run(self, index: int) -> None:
        if self._holds[index] is Hold.LEASED:
            self._blocks.move((self.block_ids[index],), Hold.LEASED, Hold.RUNNING)
            self._holds[index] = Hold.RUNNING
