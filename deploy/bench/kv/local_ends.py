"""What copies blocks between two pools of one process, and what runs it there."""

from collections.abc import Callable
from typing import Protocol

from deploy.bench.kv.ends import timed_s
from deploy.bench.kv.exchange import Exchange, Pool, new_memory
from deploy.bench.remote import IsCalled


class Copier(Protocol):
    """Copies from one pool to another. Made for a size of blocks."""

    def copy(self, exchange: Exchange) -> None:
        """Copies every block."""
        ...

    def close(self) -> None:
        """Gives back what it has registered."""
        ...


MakeCopier = Callable[[Pool, Pool], Copier]
"""Of a source and a target."""


class CopierHost:
    """A copier in its process, one after the other for each size of blocks."""

    def __init__(self, make: MakeCopier, pool_bytes: int, _is_called: IsCalled) -> None:
        self._make = make
        self._memories = (new_memory(pool_bytes), new_memory(pool_bytes))

    def prepare(self, block_bytes: int) -> None:
        """Makes the copier for a size."""
        self._source, self._target = (Pool(memory, block_bytes) for memory in self._memories)
        self._copier = self._make(self._source, self._target)

    def give(self, exchange: Exchange) -> float:
        """As `SourceHost.give`."""
        return timed_s(self._source, exchange, self._copier.copy)

    def num_wrong(self, exchange: Exchange) -> int:
        """As `TargetHost.num_wrong`."""
        return self._target.num_wrong(exchange)

    def finish(self) -> None:
        """As `SourceHost.finish`."""
        self._copier.close()

    def close(self) -> None:
        """The process ends with it."""


class TorchCopier:
    """A contestant: a plain `copy_` per block, on one thread. What memory allows."""

    def __init__(self, source: Pool, target: Pool) -> None:
        self._source = source
        self._target = target

    def copy(self, exchange: Exchange) -> None:
        """See `Copier.copy`."""
        for source_id, target_id in zip(exchange.source_ids, exchange.target_ids, strict=True):
            self._target.blocks[target_id].copy_(self._source.blocks[source_id])

    def close(self) -> None:
        """There is nothing to give back."""
