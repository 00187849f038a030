"""The sending end of one handoff, of a prompt or of a running sequence: what has been sent, and what is under way."""

from dataclasses import dataclass, field

from core.ids import WorkerEndpoint
from core.transfers import PairStats
from engine.kv.block_table import BlockTable
from kvtransfer.port import Reservation
from kvtransfer.states import SOURCE_TRANSITIONS, SourceEvent, SourceState


@dataclass(slots=True)
class Outgoing:
    """A handoff and the blocks that it reads.

        tokens   0 ............ num_sent ............ num_final ............ num_tokens
                 [ there, or written or in flight )[ final      )[ not yet, or never     )

    Whoever owns the sequence knows how many of its tokens are final and says so with each order to the sender. Those
    that the next step computes count as sent already: their writes wait for it.

    Attributes:
        handoff_id: names this attempt.
        target: who gets the KV.
        table: this worker's blocks; the owner's, who must keep them while `is_in_flight`.
        num_tokens: tokens that the target is to reserve blocks for: the prompt; of a running sequence those it has
            and some more, so that it can go on generating meanwhile.
        computed_s: when the last token to send was computed.
        reserved: the target's blocks; None until it has said.
        num_sent: leading tokens that the target had, or whose write has been posted.
        num_writes: writes posted so far.
        open_writes: ids of those that have not ended.
        is_finishing: whether `finish` has been ordered and not answered.
        moved_s: when a write ended last.
        busy_s: seconds in which its bytes were under way.
        pair: totals of this worker and the target; None until the handoff begins.
        state: where the handoff is; written by `move` only.
    """

    handoff_id: str
    target: WorkerEndpoint
    table: BlockTable
    num_tokens: int
    computed_s: float = 0.0
    reserved: Reservation | None = None
    num_sent: int = 0
    num_writes: int = 0
    open_writes: set[int] = field(default_factory=set)
    is_finishing: bool = False
    moved_s: float = 0.0
    busy_s: float = 0.0
    pair: PairStats | None = None
    state: SourceState = SourceState.NEW

    @property
    def is_begun(self) -> bool:
        """Whether the target may have reserved blocks and been told nothing since."""
        return self.state in (SourceState.OPENING, SourceState.OPEN)

    @property
    def is_leasing(self) -> bool:
        """Whether the target is to keep its blocks for this handoff."""
        return self.state in (SourceState.OPEN, SourceState.COMMITTING)

    @property
    def is_in_flight(self) -> bool:
        """Whether a write still reads the blocks, or the commit is not answered."""
        return bool(self.open_writes) or self.is_finishing

    @property
    def target_blocks(self) -> Reservation:
        """What the target has reserved, which every state after OPENING has."""
        assert self.reserved is not None, f"{self.handoff_id} is {self.state} without blocks at its target"
        return self.reserved

    @property
    def pair_stats(self) -> PairStats:
        """The totals of this worker and the target, which every state after NEW has."""
        assert self.pair is not None, f"{self.handoff_id} is {self.state} and has not begun"
        return self.pair

    def move(self, event: SourceEvent) -> None:
        """Takes the transition of the table; an event the state has no place for is our bug."""
        self.state = SOURCE_TRANSITIONS[self.state, event]
