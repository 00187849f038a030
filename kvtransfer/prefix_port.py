"""The seam between a prompt half and the peers that have prefixes: orders go out, answers come as method calls."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from core.blocks import BlockName
from core.ids import WorkerEndpoint
from kvtransfer.move import Digest


@dataclass(frozen=True, slots=True)
class PrefixFetch:
    """Blocks of the beginning of a prompt that a peer is to write here.

    Attributes:
        fetch_id: unique on this worker.
        source: who has them.
        names: of the prompt's blocks from the first one on to the last one that is wanted, in order.
        block_ids: this worker's blocks for the last of them, at least one; what comes before is here.
        timeout_s: how long to wait for the answer.
    """

    fetch_id: str
    source: WorkerEndpoint
    names: Sequence[BlockName]
    block_ids: Sequence[int]
    timeout_s: float


@dataclass(frozen=True, slots=True)
class FetchEnd:
    """How a fetch ended; nothing of it is under way any more.

    Attributes:
        num_blocks: leading blocks of the wanted ones that were written.
        refusal: why it is none.
        write_s: seconds in which the write was under way.
        digests: of some of the blocks, as they left.
    """

    num_blocks: int
    refusal: str = ""
    write_s: float = 0.0
    digests: tuple[Digest, ...] = ()


class PrefixPort(Protocol):
    """Carries a worker's orders to the peers that have prefixes. No method blocks.

    Every order is answered exactly once, on the thread that owns the half, and never before it has returned.
    """

    def fetch(self, fetch: PrefixFetch) -> None:
        """Asks for blocks; answered by `on_fetched`, or by `on_fetch_lost` when its time is over."""
        ...

    def end(self, fetch_id: str, source: WorkerEndpoint) -> None:
        """Gives up a fetch that was lost; answered by `on_ended`."""
        ...


class PrefixTarget(Protocol):
    """Who gives orders to a `PrefixPort` and hears the answers."""

    def on_fetched(self, fetch_id: str, end: FetchEnd) -> None:
        """The source has answered."""
        ...

    def on_fetch_lost(self, fetch_id: str, reason: str) -> None:
        """The source has not answered, and may be writing now or later."""
        ...

    def on_ended(self, fetch_id: str, *, is_over: bool) -> None:
        """Whether the source has said that nothing is under way and nothing will be; otherwise it did not answer."""
        ...
