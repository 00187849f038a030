"""One prompt on its way through the prefill half: what is computed, what is sent, where its handoff is."""

from dataclasses import dataclass

from core.ids import WorkerEndpoint
from core.request import Assignment
from engine.kv.block_table import BlockTable
from kvtransfer.port import Reservation
from kvtransfer.states import SOURCE_TRANSITIONS, SourceEvent, SourceState


@dataclass(slots=True)
class Prompt:
    """A prompt and the blocks of it.

        blocks   0 ............ num_blocks_sent ........ num_computed / block_tokens ....... len(block_ids)
                 [ there, or written or in flight )[ computed, may be sent  )[ still to be computed  )

    Attributes:
        assignment: what the router asked for.
        router_id: who asked.
        table: this worker's blocks, reserved when the prompt starts.
        num_computed: prompt tokens whose KV is in the blocks, found or computed.
        num_cached: those of them that were found.
        first_token: the token after the prompt, once computed.
        reserved: the target's blocks; None until it has said.
        num_blocks_sent: leading blocks that the target had, or whose write has been posted.
        writes_in_flight: posted writes that have not ended.
        write_posted_s: when the oldest write in flight was posted.
        computed_s: when the last prompt token was computed.
        is_returned: whether the router has been given the work back, or does not want it any more.
        state: where the handoff is; written by `move` only.
    """

    assignment: Assignment
    router_id: str
    table: BlockTable
    num_computed: int = 0
    num_cached: int = 0
    first_token: int | None = None
    reserved: Reservation | None = None
    num_blocks_sent: int = 0
    writes_in_flight: int = 0
    write_posted_s: float = 0.0
    computed_s: float = 0.0
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
    def num_remaining(self) -> int:
        """Prompt tokens still to be computed."""
        return len(self.assignment.prompt) - self.num_computed

    @property
    def needs_handoff(self) -> bool:
        """Whether anybody will decode after the first token."""
        return self.assignment.max_new_tokens > 1

    @property
    def is_begun(self) -> bool:
        """Whether the target may have reserved blocks."""
        return self.state in (SourceState.OPENING, SourceState.OPEN)

    def num_blocks_ready(self, block_tokens: int) -> int:
        """Blocks whose contents are final: full ones, and the last one when the prompt is computed."""
        return len(self.table.block_ids) if self.num_remaining == 0 else self.num_computed // block_tokens

    def move(self, event: SourceEvent) -> None:
        """Takes the transition of the table; an event the state has no place for is our bug."""
        self.state = SOURCE_TRANSITIONS[self.state, event]
