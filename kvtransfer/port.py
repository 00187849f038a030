"""The seam between a half and the world it hands KV to: orders go out here, answers come back as method calls."""

from collections.abc import Callable, Sequence
from typing import Protocol

from core.errors import BatonError
from core.events import ReturnedWork, TokenEvent
from core.ids import WorkerEndpoint


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

    def commit(self, handoff_id: str, target: WorkerEndpoint, first_token: int, num_blocks: int) -> None:
        """Lets the target run the sequence; answered by `on_committed`."""
        ...

    def abort(self, handoff_id: str, target: WorkerEndpoint) -> None:
        """Tells the target that nothing more is or will be written; not answered."""
        ...


class HandoffSource(Protocol):
    """Who gives orders to a `HandoffPort` and hears the answers."""

    def on_begun(self, handoff_id: str, block_ids: Sequence[int]) -> None:
        """The target has reserved these blocks."""
        ...

    def on_begin_refused(self, handoff_id: str, error: BatonError) -> None:
        """The target has reserved nothing, and says why."""
        ...

    def on_written(self, handoff_id: str, error: BatonError | None) -> None:
        """One write has ended; with an error, the blocks' contents at the target are undefined."""
        ...

    def on_committed(self, handoff_id: str, error: BatonError | None) -> None:
        """The target has taken over the sequence, or with an error has not and will not."""
        ...


class Outbox(Protocol):
    """Where a half puts what routers must hear; delivered once per step."""

    def token(self, router_id: str, event: TokenEvent) -> None:
        """A token for the router that assigned the work."""
        ...

    def returned(self, router_id: str, work: ReturnedWork) -> None:
        """Work given back to the router that assigned it."""
        ...


BeginReply = Callable[[list[int] | BatonError], None]
"""Tells a source which blocks are reserved for it, or why none are. Called exactly once."""

CommitReply = Callable[[BatonError | None], None]
"""Tells a source whether the target has taken over. Called exactly once."""
