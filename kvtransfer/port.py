"""The seam between a half and the world it hands KV to: orders go out here, answers come back as method calls."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from core.errors import BatonError
from core.events import ReturnedWork, TokenEvent
from core.ids import WorkerEndpoint
from kvtransfer.move import Move, MoveOutcome

LEASE_LOST = "lease_lost"
"""Code of a handoff whose target has let go of the blocks it had reserved."""

TARGET_LOST = "target_lost"
"""Code of a handoff whose target has died."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a target has for a sequence, in its own blocks.

        blocks of it           0 ........ num_present ........ num_present + len(block_ids)
                               [ it has their KV )[ to be written into `block_ids`      )

    Attributes:
        num_present: leading blocks whose KV it has already; full ones.
        block_ids: its blocks for the rest, in the order of the sequence; may be none.
        block_tokens: tokens of each of its blocks; a multiple or a divisor of the source's.
    """

    num_present: int
    block_ids: Sequence[int]
    block_tokens: int

    @property
    def num_blocks(self) -> int:
        """Blocks of all that was asked for."""
        return self.num_present + len(self.block_ids)

    @property
    def num_present_tokens(self) -> int:
        """Leading tokens whose KV it has already."""
        return self.num_present * self.block_tokens

    def blocks_for(self, start: int, end: int) -> Sequence[int]:
        """Where tokens `[start, end)` of the sequence go, of which it has none; `start` begins a block."""
        first, last = start // self.block_tokens, -(-end // self.block_tokens)
        return self.block_ids[first - self.num_present : last - self.num_present]


class HandoffPort(Protocol):
    """Carries a source's orders to the target of a handoff. No method blocks.

    `begin`, `write` and `finish` are answered exactly once each, by the matching method of `HandoffSource`, on the
    thread that owns the half, and never before the order has returned.
    """

    def begin(self, handoff_id: str, target: WorkerEndpoint, num_tokens: int | None) -> None:
        """Asks the target for blocks; answered by `on_begun` or `on_begin_refused`.

        Args:
            handoff_id: the attempt.
            target: who is to reserve blocks.
            num_tokens: for how many tokens of a sequence that is running; None for those of the prompt.
        """
        ...

    def write(self, handoff_id: str, target: WorkerEndpoint, write_id: int, move: Move) -> None:
        """Copies blocks; answered by `on_written`. Writes of one handoff may be under way together.

        Args:
            handoff_id: the attempt.
            target: who gets the blocks.
            write_id: comes back with the answer; unique within the handoff.
            move: what is copied.
        """
        ...

    def finish(self, handoff_id: str, target: WorkerEndpoint, token_ids: Sequence[int], num_blocks: int) -> None:
        """Lets the target run the sequence as soon as all writes ordered before have ended well.

        One order, so that the target need not wait until the source's engine has time to look. Answered by
        `on_finished`, after all writes have been.

        Args:
            handoff_id: the attempt.
            target: who takes over.
            token_ids: of the answer since the prompt, at least one; the KV of the last one is still to be computed.
            num_blocks: blocks of the target written in this handoff; it checks that the sequence has no others.
        """
        ...

    def renew(self, target: WorkerEndpoint, handoff_ids: Sequence[str]) -> None:
        """Tells the target that these handoffs are alive; `on_leases_lost` hears of those that it does not know."""
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

    def on_written(self, handoff_id: str, write_id: int, outcome: MoveOutcome, ended_s: float) -> None:
        """One write ended at `ended_s` on the clock; with an error, the target's blocks hold anything."""
        ...

    def on_finished(self, handoff_id: str, error: BatonError | None, acknowledged_s: float) -> None:
        """The target has taken over the sequence, and said so at `acknowledged_s` on the clock.

        With UnknownOutcomeError it may have, and nobody knows; with any other error it has not and never will. After
        either it must be told to let go. No write is in flight any more.
        """
        ...

    def on_leases_lost(self, handoff_ids: Sequence[str]) -> None:
        """A target no longer keeps blocks for these handoffs: they expired there, were cancelled, or have ended."""
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

RenewReply = Callable[[Sequence[str]], None]
"""Tells a source which of the handoffs it named have no lease any more. Called exactly once."""
