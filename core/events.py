"""What a worker tells a router about its work. Not the wire form, which is protobuf."""

from dataclasses import dataclass

from core.cost import CostChange
from core.logprobs import TokenLogprobs
from core.request import FinishReason


@dataclass(frozen=True, slots=True)
class TokenTiming:
    """What came before a token, on the clock of the worker that drew it.

    Attributes:
        queue_s: seconds from the arrival of the assignment until a step was planned with work of it; 0 after a
            handoff.
        compute_s: seconds from then, or from when the sequence was taken over, until the token was drawn.
    """

    queue_s: float
    compute_s: float


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One generated token.

    Attributes:
        handoff_id: the attempt it belongs to.
        position: its index in the answer; the router accepts the next position only.
        token_id: the token.
        finish_reason: set when the answer ends with it.
        logprobs: set when the request asked for them.
        cached_tokens: with an attempt's first token, the tokens of its prompt whose KV was found, not computed.
        timing: with the first token of each worker in an attempt, what came before it.
    """

    handoff_id: str
    position: int
    token_id: int
    finish_reason: FinishReason | None = None
    logprobs: TokenLogprobs | None = None
    cached_tokens: int = 0
    timing: TokenTiming | None = None


ROLE_CHANGED = "role_changed"
"""Code of a prompt that comes back because the worker's new role has no place for it; it had not started."""
RECALLED = "recalled"
"""Code of a prompt that comes back because its router wanted it; it had not started."""
MIGRATED = "migrated"
"""Code of a sequence that goes on at another worker."""


@dataclass(frozen=True, slots=True)
class ReturnedWork:
    """Work that a worker gives back unfinished; it holds nothing for it any more, or only quarantined blocks.

    Attributes:
        handoff_id: the attempt that has ended.
        code: a machine-readable word, such as `preempted` or `handoff_failed`.
        message: what happened, for people.
        retryable: whether another attempt can succeed.
    """

    handoff_id: str
    code: str
    message: str
    retryable: bool = True


@dataclass(frozen=True, slots=True)
class WorkerLoad:
    """A worker's load and totals; units as in `baton/v1/worker.proto`, message `WorkerLoad`.

    Raises:
        ConfigError: on construction, when costs are said to have changed by what cannot be.
    """

    queued_prompts: int = 0
    pending_prompt_tokens: int = 0
    running_sequences: int = 0
    incoming_handoffs: int = 0
    blocks_total: int = 0
    blocks_free: int = 0
    blocks_running: int = 0
    blocks_leased: int = 0
    blocks_quarantined: int = 0
    prompt_tokens_computed: int = 0
    decode_tokens_computed: int = 0
    steps: int = 0
    handoffs_sent: int = 0
    handoff_bytes: int = 0
    handoff_write_s: float = 0.0
    handoff_exposed_s: float = 0.0
    handoffs_received: int = 0
    blocks_cached: int = 0
    prefix_query_tokens: int = 0
    prefix_hit_tokens: int = 0
    blocks_evicted: int = 0
    handoff_bytes_saved: int = 0
    host_blocks: int = 0
    host_blocks_restored: int = 0
    host_blocks_dropped: int = 0
    blocks_free_together: int = 0
    running_context_tokens: int = 0
    prefill_cost_change: float = 0.0
    prefill_attention_cost_change: float = 0.0
    decode_cost_change: float = 0.0
    decode_attention_cost_change: float = 0.0
    prefill_cost_error: float = 0.0
    decode_cost_error: float = 0.0
    prefix_fetches: int = 0
    prefix_fetches_failed: int = 0
    prefix_tokens_fetched: int = 0
    prefix_bytes_fetched: int = 0
    prefix_fetch_s: float = 0.0
    role_epoch: int = 0
    epoch_steps: int = 0
    epoch_prompt_tokens: int = 0
    epoch_decode_tokens: int = 0
    epoch_first_work_s: float = 0.0
    migrations_sent: int = 0
    migrations_received: int = 0
    migrations_failed: int = 0
    migration_pause_s: float = 0.0
    migration_longest_pause_s: float = 0.0
    migrations_open: int = 0

    def __post_init__(self) -> None:
        _ = self.cost_change

    @property
    def cost_change(self) -> CostChange:
        """By how much its steps differ from the cost model it measured."""
        return CostChange(
            prefill=self.prefill_cost_change,
            prefill_attention=self.prefill_attention_cost_change,
            decode=self.decode_cost_change,
            decode_attention=self.decode_attention_cost_change,
        )
