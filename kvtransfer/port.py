"""The seam between a half and the world it hands KV to: orders go out here, answers come back as method calls."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from core.errors import BatonError
from core.events import ReturnedWork, TokenEvent
from core.ids import WorkerEndpoint


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a target has for a prompt.

        blocks of the prompt   0 ........ num_present ........ num_present + len(block_ids)
                               [ it has their KV )[ to be written into `block_ids`      )

    Attributes:
        num_present: leading blocks whose KV it has already.
        block_ids: its blocks for the rest, in the order of the prompt; may be none.
    """

    num_present: int
    block_ids: Sequence[int]

    @property
    def num_blocks(self) -> int:
        """Blocks of the whole prompt."""
        return self.num_present + len(self.block_ids)

    def blocks_for(self, first: int, end: int) -> Sequence[int]:
        """Where blocks `[first, end)` of the prompt go, none of which it has already."""
        return self.block_ids[first - self.num_present : end - self.num_present]


@dataclass(frozen=True, slots=True)
class LastBlocks:
    """What ends a handoff.

    Attributes:
        local: the source's blocks that are still to be written; may be none.
        remote: where to, in the same order.
        first_token: the token chosen after the prompt.
        num_blocks: written in this handoff; the target checks that it is all it reserved.
    """

    local: Sequence[int]
    remote: Sequence[int]
    first_token: int
    num_blocks: int


@dataclass(frozen=True, slots=True)
class FinishTimes:
    """When the end of a handoff came, on the clock.

    Attributes:
        written_s: the last block was there.
        acknowledged_s: the target said that it has taken over.
    """

    written_s: float
    acknowledged_s: float


class HandoffPort(Protocol):
    """Carries a source's orders to the target of a handoff. No method blocks.

    Every order but `abort` is answered exactly once, by the matching method of `HandoffSource`, on the thread that
    owns the half, and never before the order has returned.
    """

    def begin(self, handoff_id: str, target: WorkerEndpoint) -> None:
        """Asks the target for blocks; answered by `on_begun` or `on_begin_refused`."""
        ...

    def write(self, handoff_id: str, target: WorkerEndpoint, local: Sequence[int], remote: Sequence[int]) -> None:
        """Copies blocks; answered by `on_written`."""
        ...

    def finish(self, handoff_id: str, target: WorkerEndpoint, last: "LastBlocks") -> None:
        """Copies the last blocks and, as soon as they are there, lets the target run the sequence.

        One order, so that the target need not wait until the source's engine has time to look. Answered by
        `on_finished`.
        """
        ...

    def abort(self, handoff_id: str, target: WorkerEndpoint) -> None:
        """Tells the target that nothing more is or will be written; not answered."""
        ...


class HandoffSource(Protocol):
    """Who gives orders to a `HandoffPort` and hears the answers."""

    def on_begun(self, handoff_id: str, reserved: Reservation) -> None:
        """The target has reserved blocks."""
        ...

    def on_begin_refused(self, handoff_id: str, error: BatonError) -> None:
        """The target has reserved nothing, and says why."""
        ...

    def on_written(self, handoff_id: str, error: BatonError | None, ended_s: float) -> None:
        """One write ended at `ended_s` on the clock; with an error, the target's blocks hold anything."""
        ...

    def on_finished(self, handoff_id: str, error: BatonError | None, times: "FinishTimes") -> None:
        """The target has taken over the sequence; with an error nobody knows, and it must be told to let go.

        Either way no write is in flight any more.
        """
        ...


class Outbox(Protocol):
    """Where a half puts what routers must hear; delivered once per step."""

    def token(self, router_id: str, event: TokenEvent) -> None:
        """A token for the router that assigned the work."""
        ...

    def returned(self, router_id: str, work: ReturnedWork) -> None:
        """Work given back to the router that assigned it."""
        ...


BeginReply = Callable[[Reservation | BatonError], None]
"""Tells a source which blocks are reserved for it, or why none are. Called exactly once."""

CommitReply = Callable[[BatonError | None], None]
"""Tells a source whether the target has taken over. Called exactly once."""
