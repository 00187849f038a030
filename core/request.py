"""Requests in token ids, as everything behind the router sees them. Not the HTTP request, nor its text."""

from dataclasses import dataclass
from enum import StrEnum

from core.fair_line import Turn
from core.ids import WorkerEndpoint
from core.sampling import SamplingParams


class FinishReason(StrEnum):
    """Why a request's answer ended, in OpenAI's words."""

    STOP = "stop"
    """An end-of-sequence or stop token was generated, or a stop string appeared."""
    LENGTH = "length"
    """`max_tokens` were generated, or the context is full."""


class Role(StrEnum):
    """Which half a worker is for now."""

    PREFILL = "prefill"
    DECODE = "decode"
    MIXED = "mixed"
    """Both."""

    def serves(self, half: "Role") -> bool:
        """Whether a worker in this role is given work of `half`, which is PREFILL or DECODE."""
        return self is half or self is Role.MIXED


HALVES = (Role.PREFILL, Role.DECODE)
"""What a request needs a worker for, in order."""


MIGRATION_HEADROOM_TOKENS = 128
"""What a sequence that goes on elsewhere gets room for there, beyond what it has: seconds of generating while it is
copied, in eight blocks of the usual size. The router counts on as much room as the workers ask for."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What a client asked for, tokenized and validated.

    Attributes:
        request_id: unique over the fleet.
        prompt: token ids, at least one.
        max_tokens: the most tokens to generate, at least one; prompt plus this fits the context.
        sampling: how tokens are chosen.
        stop_token_ids: generating one of these ends the answer; the token itself is not shown. Holds the
            model's end-of-sequence ids unless the client asked to ignore them.
        cache_salt: KV is shared with requests of the same salt only; the empty one is everybody's.
        tenant: whose it is, an id without secrets; several share the workers fairly. Empty: nobody's in particular.
        priority: requests with a lower number go first, as in vLLM.
        timeout_s: seconds until it fails if it has not ended; None for the router's limit, which also bounds it.
        name: what its client calls it, unique among the tenant's requests under way; empty: nothing.
    """

    request_id: str
    prompt: tuple[int, ...]
    max_tokens: int
    sampling: SamplingParams
    stop_token_ids: frozenset[int] = frozenset()
    cache_salt: str = ""
    tenant: str = ""
    priority: int = 0
    timeout_s: float | None = None
    name: str = ""

    @property
    def turn(self) -> Turn:
        """When its prompt is computed, but for its age."""
        return self.priority, self.tenant


@dataclass(frozen=True, slots=True)
class PrefixSource:
    """A worker that has the KV of a prompt's beginning, in blocks just like those of the one that computes it.

    Attributes:
        endpoint: who and where it is.
        num_tokens: leading tokens of the prompt, in whole blocks.
        expected_s: predicted seconds until they have come from there.
    """

    endpoint: WorkerEndpoint
    num_tokens: int
    expected_s: float


@dataclass(frozen=True, slots=True)
class Assignment:
    """One attempt to serve a request on one prefill and one decode worker; both get the same.

    On a second attempt the tokens already given to the client stand at the end of `prompt`, and
    `first_position` says how many they are.

    Attributes:
        handoff_id: names this attempt; see `core.ids.handoff_id`.
        prompt: token ids whose KV must exist before the next token can be chosen.
        first_position: index in the *answer* of the first token this attempt generates.
        max_new_tokens: the most tokens this attempt generates, at least one.
        sampling: how tokens are chosen; draws are keyed by (seed, index in the answer).
        stop_token_ids: generating one of these ends the answer.
        prefill: who computes the prompt.
        decode: who generates after the first token.
        cache_salt: KV is shared with requests of the same salt only; the empty one is everybody's.
        prefix_source: from whom `prefill` fetches the beginning of the prompt, when that is faster than computing.
        tenant: whose work it is; see `GenerationRequest`.
        priority: likewise.
        tenant_answer_tokens: tokens of answers to prompts of the tenant that `prefill` computed, received since it
            was sent the last of these.
    """

    handoff_id: str
    prompt: tuple[int, ...]
    first_position: int
    max_new_tokens: int
    sampling: SamplingParams
    stop_token_ids: frozenset[int]
    prefill: WorkerEndpoint
    decode: WorkerEndpoint
    cache_salt: str = ""
    prefix_source: PrefixSource | None = None
    tenant: str = ""
    priority: int = 0
    tenant_answer_tokens: int = 0

    @property
    def turn(self) -> Turn:
        """See `GenerationRequest`."""
        return self.priority, self.tenant

    def finish_reason(self, token_id: int, num_generated: int) -> FinishReason | None:
        """Whether the answer ends with `token_id`, the `num_generated`-th token of this attempt (1-based)."""
        if token_id in self.stop_token_ids:
            return FinishReason.STOP
        if num_generated >= self.max_new_tokens:
            return FinishReason.LENGTH
        return None
