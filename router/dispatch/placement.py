"""Which prefill and which decode worker serve a request. Pure arithmetic over a snapshot."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from core.ids import WorkerId

ASSUMED_PREFILL_TOKENS_PER_S = 1000.0  # until a worker has measured itself; only ratios between workers matter


@dataclass(frozen=True, slots=True)
class PrefillCandidate:
    """A prefill worker as placement sees it.

    Attributes:
        worker: its id.
        pending_tokens: prompt tokens it still has to compute.
        tokens_per_s: its prompt speed; 0 when not measured yet.
    """

    worker: WorkerId
    pending_tokens: int
    tokens_per_s: float

    def completion_s(self, num_prompt_tokens: int) -> float:
        """Predicted seconds until a prompt placed now is computed."""
        speed = self.tokens_per_s if self.tokens_per_s > 0 else ASSUMED_PREFILL_TOKENS_PER_S
        return (self.pending_tokens + num_prompt_tokens) / speed


@dataclass(frozen=True, slots=True)
class DecodeCandidate:
    """A decode worker as placement sees it.

    Attributes:
        worker: its id.
        num_sequences: sequences it generates or is to generate.
        max_num_seqs: most it takes at once.
        free_blocks: KV blocks not taken and not promised.
        block_tokens: tokens per block.
    """

    worker: WorkerId
    num_sequences: int
    max_num_seqs: int
    free_blocks: int
    block_tokens: int

    def badness(self, num_prompt_tokens: int) -> tuple[bool, float, int]:
        """Smaller is better: first whether it would have to wait for room, then how full its batch is."""
        needed = -(-num_prompt_tokens // self.block_tokens) + 1
        must_wait = self.num_sequences >= self.max_num_seqs or needed > self.free_blocks
        return must_wait, self.num_sequences / self.max_num_seqs, -self.free_blocks


def place(
    prefill: Sequence[PrefillCandidate],
    decode: Sequence[DecodeCandidate],
    num_prompt_tokens: int,
    avoid: Collection[WorkerId] = (),
) -> tuple[WorkerId, WorkerId] | None:
    """Chooses (prefill, decode) for a prompt: earliest predicted completion, and the decode worker with most room.

    Workers in `avoid` failed this request before; they are taken only if there is no other.

    Returns:
        None when a role has no worker.
    """
    if not prefill or not decode:
        return None
    best_prefill = min(prefill, key=lambda c: (c.worker in avoid, c.completion_s(num_prompt_tokens), c.worker))
    best_decode = min(decode, key=lambda c: (c.worker in avoid, c.badness(num_prompt_tokens), c.worker))
    return best_prefill.worker, best_decode.worker
