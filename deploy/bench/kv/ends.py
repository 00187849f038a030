"""The two ends of whatever copies blocks from one process to another, and what runs each in its process."""

import time
from collections.abc import Callable
from typing import Any, Protocol

from deploy.bench.kv.exchange import Exchange, Pool, new_memory
from deploy.bench.remote import IsCalled

HOST = "127.0.0.1"
WAIT_S = 30.0  # for the other end, which does its part at the same time


class End(Protocol):
    """One end. Made for a size of blocks, and closed before the next.

    Attributes:
        address: what the other end needs to reach it; can be pickled.
    """

    address: Any

    def close(self) -> None:
        """Gives back connections and registrations."""
        ...


class Source(End, Protocol):
    """Gives blocks of its pool."""

    def open(self, target: Any) -> None:  # noqa: ANN401 - what the target's `address` is
        """Connects; the target opens at the same time."""
        ...

    def give(self, exchange: Exchange) -> None:
        """Returns when the target has every block, in its place."""
        ...


class Target(End, Protocol):
    """Gets blocks into its pool. Made after its source, which has not heard of it yet."""

    def open(self) -> None:
        """Connects; the source opens at the same time."""
        ...

    def take(self, exchange: Exchange) -> None:
        """Does the target's part of `Source.give`."""
        ...


MakeSource = Callable[[Pool], Source]
MakeTarget = Callable[[Pool, Any, IsCalled], Target]
"""Told the source's address, and how to see that the source is done, for what has no other way to know."""


class SourceHost:
    """A source in its process, one after the other for each size of blocks."""

    def __init__(self, make: MakeSource, pool_bytes: int, _is_called: IsCalled) -> None:
        self._make = make
        self._memory = new_memory(pool_bytes)

    def prepare(self, block_bytes: int) -> Any:  # noqa: ANN401 - an address
        """Makes the source for a size; returns its address."""
        self._pool = Pool(self._memory, block_bytes)
        self._end = self._make(self._pool)
        return self._end.address

    def open(self, target: Any) -> None:  # noqa: ANN401 - an address
        """See `Source.open`."""
        self._end.open(target)

    def give(self, exchange: Exchange) -> float:
        """Marks the blocks and gives them; returns how many seconds the latter took."""
        return timed_s(self._pool, exchange, self._end.give)

    def finish(self) -> None:
        """Ends what `prepare` began."""
        self._end.close()

    def close(self) -> None:
        """The process ends with it."""


class TargetHost:
    """A target in its process, one after the other for each size of blocks."""

    def __init__(self, make: MakeTarget, pool_bytes: int, is_called: IsCalled) -> None:
        self._make = make
        self._is_called = is_called
        self._memory = new_memory(pool_bytes)

    def prepare(self, block_bytes: int, source: Any) -> Any:  # noqa: ANN401 - addresses
        """Makes the target for a size and a source; returns its address."""
        self._pool = Pool(self._memory, block_bytes)
        self._end = self._make(self._pool, source, self._is_called)
        return self._end.address

    def open(self) -> None:
        """See `Target.open`."""
        self._end.open()

    def take(self, exchange: Exchange) -> None:
        """See `Target.take`."""
        self._end.take(exchange)

    def stop_waiting(self) -> None:
        """A call as good as any for a target that waits for one."""

    def num_wrong(self, exchange: Exchange) -> int:
        """Blocks that did not arrive as they should have."""
        return self._pool.num_wrong(exchange)

    def finish(self) -> None:
        """Ends what `prepare` began."""
        self._end.close()

    def close(self) -> None:
        """The process ends with it."""


def timed_s(source: Pool, exchange: Exchange, copy: Callable[[Exchange], None]) -> float:
    """Marks the source's blocks and copies them; returns how many seconds the latter took."""
    source.mark(exchange)
    started_s = time.perf_counter()
    copy(exchange)
    return time.perf_counter() - started_s
