"""Two ends in processes of their own, seen as one thing that copies blocks; and one process that has both."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

from core.errors import InternalError
from deploy.bench.kv.ends import MakeSource, MakeTarget, SourceHost, TargetHost
from deploy.bench.kv.exchange import Exchange
from deploy.bench.kv.local_ends import CopierHost, MakeCopier
from deploy.bench.remote import Remote


class Pair(Protocol):
    """Copies blocks of one size after the other."""

    def open(self, block_bytes: int) -> None:
        """Gets ready for a size.

        Raises:
            InternalError: an end failed; here and below.
        """
        ...

    def copy(self, exchange: Exchange) -> float:
        """Copies all blocks, checks that they arrived, and returns the seconds of the copying alone."""
        ...

    def finish(self) -> None:
        """Ends what `open` began."""
        ...

    def close(self) -> None:
        """Ends the processes."""
        ...


class ProcessPair:
    """Implements `Pair` by a source on one core and a target on another.

    Args:
        make: of source and target.
        pool_bytes: of each end.
        cores: of source and target.
        environment: of both processes.
    """

    def __init__(
        self,
        make: tuple[MakeSource, MakeTarget],
        pool_bytes: int,
        cores: tuple[int, int],
        environment: Mapping[str, str],
    ) -> None:
        make_source, make_target = make
        self._source = Remote(partial(SourceHost, make_source, pool_bytes), cores[0], environment)
        self._target = Remote(partial(TargetHost, make_target, pool_bytes), cores[1], environment)

    def open(self, block_bytes: int) -> None:
        """See `Pair.open`."""
        source = self._source.call("prepare", block_bytes)
        target = self._target.call("prepare", block_bytes, source)
        self._together(("open", target), ("open",))

    def copy(self, exchange: Exchange) -> float:
        """See `Pair.copy`."""
        seconds: float = self._together(("give", exchange), ("take", exchange))
        check_arrival(self._target.call("num_wrong", exchange), exchange)
        return seconds

    def finish(self) -> None:
        """See `Pair.finish`."""
        for end in (self._source, self._target):
            end.call("finish")

    def close(self) -> None:
        """See `Pair.close`."""
        for end in (self._source, self._target):
            end.close()

    def _together(self, of_source: tuple[str, Any], of_target: tuple[Any, ...]) -> Any:  # noqa: ANN401 - as `Remote.call`
        """Calls a method of each at the same time, given with its arguments; returns the source's result."""
        self._target.start(*of_target)
        result = self._source.call(*of_source)
        self._target.start("stop_waiting")
        self._target.result()
        self._target.result()
        return result


class LocalPair:
    """Implements `Pair` within one process.

    Args:
        make: makes the copier.
        pool_bytes: of each of its two pools.
        core: of the process.
        environment: of the process.
    """

    def __init__(self, make: MakeCopier, pool_bytes: int, core: int, environment: Mapping[str, str]) -> None:
        self._host = Remote(partial(CopierHost, make, pool_bytes), core, environment)

    def open(self, block_bytes: int) -> None:
        """See `Pair.open`."""
        self._host.call("prepare", block_bytes)

    def copy(self, exchange: Exchange) -> float:
        """See `Pair.copy`."""
        seconds: float = self._host.call("give", exchange)
        check_arrival(self._host.call("num_wrong", exchange), exchange)
        return seconds

    def finish(self) -> None:
        """See `Pair.finish`."""
        self._host.call("finish")

    def close(self) -> None:
        """See `Pair.close`."""
        self._host.close()


def check_arrival(num_wrong: int, exchange: Exchange) -> None:
    """A figure of bytes that did not arrive would be worth nothing.

    Raises:
        InternalError: there are such.
    """
    if num_wrong:
        raise InternalError(f"{num_wrong} of {exchange.num_blocks} blocks are not what was sent")
