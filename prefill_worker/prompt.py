"""One prompt on its way through the prefill half: what is computed, and where its KV goes."""

from dataclasses import dataclass

from core.events import TokenTiming
from core.request import Assignment
from engine.kv.block_table import BlockTable
from kvtransfer.outgoing import Outgoing


@dataclass(slots=True)
class Prompt:
    """A prompt and the blocks of it.

        tokens   0 ............ num_computed ............ num_tokens
                 [ KV in blocks           )[ still to be computed  )

    Attributes:
        assignment: what the router asked for.
        router_id: who asked.
        table: this worker's blocks, reserved when the prompt starts.
        handoff: the sending end; it stays NEW where nobody else decodes.
        num_computed: prompt tokens whose KV is in the blocks, found or computed.
        num_cached: those of them that were found.
        first_token: the token after the prompt, once computed.
        is_returned: whether the router has been given the work back, or does not want it any more.
        arrived_s: when its assignment came, on the worker's clock.
        started_s: when a step was first planned with it; the same until then.
    """

    assignment: Assignment
    router_id: str
    table: BlockTable
    handoff: Outgoing
    num_computed: int = 0
    num_cached: int = 0
    first_token: int | None = None
    is_returned: bool = False
    arrived_s: float = 0.0
    started_s: float = 0.0

    @classmethod
    def of(cls, assignment: Assignment, router_id: str, table: BlockTable, arrived_s: float = 0.0) -> "Prompt":
        """A prompt that has not started."""
        num_tokens = len(assignment.prompt)
        handoff = Outgoing(assignment.handoff_id, assignment.decode, table, num_tokens)
        return cls(assignment, router_id, table, handoff, arrived_s=arrived_s, started_s=arrived_s)

    @property
    def handoff_id(self) -> str:
        """Names this attempt."""
        return self.assignment.handoff_id

    @property
    def num_tokens(self) -> int:
        """Tokens of the prompt."""
        return len(self.assignment.prompt)

    @property
    def num_remaining(self) -> int:
        """Prompt tokens still to be computed."""
        return self.num_tokens - self.num_computed

    @property
    def stays_here(self) -> bool:
        """Whether this worker decodes, too."""
        return self.assignment.prefill.worker == self.assignment.decode.worker

    @property
    def timing(self) -> TokenTiming:
        """What came before the first token, which was drawn a moment ago."""
        return TokenTiming(self.started_s - self.arrived_s, self.handoff.computed_s - self.started_s)

    @property
    def needs_handoff(self) -> bool:
        """Whether another worker will decode after the first token."""
        return self.assignment.max_new_tokens > 1 and not self.stays_here
