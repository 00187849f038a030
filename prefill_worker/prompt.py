"""One prompt on its way through the prefill half: what is computed, what is sent, where its handoff is."""

from dataclasses import dataclass, field

from core.ids import WorkerEndpoint
from core.request import Assignment
from core.transfers import PairStats
from engine.kv.block_table import BlockTable
from kvtransfer.port import Reservation
from kvtransfer.states import SOURCE_TRANSITIONS, SourceEvent, SourceState


@dataclass(slots=True)
class Prompt:
    """A prompt and the blocks of it.

        tokens   0 ............ num_sent ............ num_computed ............ num_tokens
                 [ there, or written or in flight )[ computed    )[ still to be computed )

    While the last chunk is computed, its tokens count as sent already: their writes wait for it.

    Attributes:
        assignment: what the router asked for.
        router_id: who asked.
        table: this worker's blocks, reserved when the prompt starts.
        num_computed: prompt tokens whose KV is in the blocks, found or computed.
        num_cached: those of them that were found.
        first_token: the token after the prompt, once computed.
        computed_s: when the last prompt token was computed.
        reserved: the target's blocks; None until it has said.
        num_sent: leading tokens that the target had, or whose write has been posted.
        num_writes: writes posted so far.
        open_writes: ids of those that have not ended.
        is_finishing: whether `finish` has been ordered and not answered.
        moved_s: when a write ended last.
        busy_s: seconds in which its bytes were under way.
        pair: totals of this worker and the target; None until the handoff begins.
        is_returned: whether the router has been given the work back, or does not want it any more.
        state: where the handoff is; written by `move` only.
    """

    assignment: Assignment
    router_id: str
    table: BlockTable
    num_computed: int = 0
    num_cached: int = 0
    first_token: int | None = None
    computed_s: float = 0.0
    reserved: Reservation | None = None
    num_sent: int = 0
    num_writes: int = 0
    open_writes: set[int] = field(default_factory=set)
    is_finishing: bool = False
    moved_s: float = 0.0
    busy_s: float = 0.0
    pair: PairStats | None = None
    is_returned: bool = False
    state: SourceState = SourceState.NEW

    @property
    def handoff_id(self) -> str:
        """Names this attempt."""
        return self.assignment.handoff_id

    @property
    def target(self) -> WorkerEndpoint:
        """Who gets the KV."""
        return self.assignment.decode

    @property
    def num_tokens(self) -> int:
        """Tokens of the prompt."""
        return len(self.assignment.prompt)

    @property
    def num_remaining(self) -> int:
        """Prompt tokens still to be computed."""
        return self.num_tokens - self.num_computed

    @property
    def needs_handoff(self) -> bool:
        """Whether anybody will decode after the first token."""
        return self.assignment.max_new_tokens > 1

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

    def move(self, event: SourceEvent) -> None:
        """Takes the transition of the table; an event the state has no place for is our bug."""
        self.state = SOURCE_TRANSITIONS[self.state, event]
