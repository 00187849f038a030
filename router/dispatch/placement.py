"""Which prefill and which decode worker serve a request. Pure arithmetic over a snapshot."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from core.cost import STEP_SHARE, CostModel
from core.ids import WorkerId

# Step times this close are the same as far as anybody can tell: of equal workers that start together on one machine,
# one measures as much more than the other. Were the smaller always believed, one of them would get all the work.
SAME_STEP_TIME = 1.25
# By how much of its places a worker that has most of a prompt may be fuller than the emptiest, and still get it.
# Where steps take the same whatever the batch, nothing else would keep a beginning that all share from filling one.
SAME_FULLNESS = 1 / 8
# A prompt is late because of others when it waits for at least this part of the time that it is computed. One that is
# late by itself harms nobody while no queue is long, and should not queue behind its like.
WAITING_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class PrefillCandidate:
    """A prefill worker as placement sees it.

    Attributes:
        worker: its id.
        pending_tokens: prompt tokens it still has to compute.
        cost: how long its steps take.
        cached_tokens: leading tokens of the prompt whose KV it has.
        share: how fast it computes prompts, as a share of its cost model: less than 1 beside sequences.
    """

    worker: WorkerId
    pending_tokens: int
    cost: CostModel
    cached_tokens: int = 0
    share: float = 1.0

    @property
    def wait_s(self) -> float:
        """Predicted seconds until those are computed that are there already."""
        return self.cost.backlog_s(self.pending_tokens) / self.share

    def completion_s(self, num_prompt_tokens: int) -> float:
        """Predicted seconds until a prompt placed now is computed, but for what is in its cache."""
        return self.prompt_s(num_prompt_tokens, self.cached_tokens)

    def alone_s(self, num_prompt_tokens: int) -> float:
        """The same if nothing were before it."""
        return replace(self, pending_tokens=0).completion_s(num_prompt_tokens)

    def prompt_s(self, num_prompt_tokens: int, num_cached: int) -> float:
        """As `completion_s` if it had the KV of `num_cached` leading tokens; the last is computed all the same."""
        num_cached = min(num_cached, num_prompt_tokens - 1)
        return self.cost.completion_s(self.pending_tokens, num_prompt_tokens - num_cached, num_cached) / self.share


@dataclass(frozen=True, slots=True)
class DecodeCandidate:
    """A decode worker as placement sees it.

    Attributes:
        worker: its id.
        num_sequences: sequences it generates or is to generate.
        num_context_tokens: tokens those attend to.
        max_num_seqs: most it takes at once.
        free_blocks: KV blocks not taken and not promised.
        block_tokens: tokens per block.
        cost: how long its steps take.
        present_tokens: leading tokens of the prompt whose KV it has, and need not be sent.
        num_before: sequences that get a place before the prompt's does, at most.
    """

    worker: WorkerId
    num_sequences: int
    num_context_tokens: int
    max_num_seqs: int
    free_blocks: int
    block_tokens: int
    cost: CostModel
    present_tokens: int = 0
    num_before: float = math.inf

    def must_wait(self, num_prompt_tokens: int) -> bool:
        """Whether a prompt would have to wait for room.

        Blocks that it has already need room, too, unless somebody uses them: cached ones count as free.
        """
        return self.num_sequences >= self.max_num_seqs or self._blocks_for(num_prompt_tokens) > self.free_blocks

    def _blocks_for(self, num_prompt_tokens: int) -> int:
        """What a prompt needs, with one to grow."""
        return -(-num_prompt_tokens // self.block_tokens) + 1

    def place_s(self, num_prompt_tokens: int, num_answer_tokens: float) -> float:
        """Predicted seconds until a prompt placed now has a place and room; 0 when it has both at once.

        So many sequences must end before, and of those that run one does whenever they have together generated an
        answer.

        Args:
            num_prompt_tokens: of the prompt.
            num_answer_tokens: that sequences generate, in the mean.
        """
        if not self.must_wait(num_prompt_tokens):
            return 0.0
        num_missing = self._blocks_for(num_prompt_tokens) - self.free_blocks
        blocks_each = max(1.0, self.num_context_tokens / self.block_tokens / max(1, self.num_sequences))
        num_ahead = max(self.num_sequences + 1 - self.max_num_seqs, math.ceil(num_missing / blocks_each))
        num_running = max(1, min(self.max_num_seqs, self.num_sequences + 1 - num_ahead))
        num_context_tokens = (self.num_context_tokens + num_prompt_tokens) * num_running // (self.num_sequences + 1)
        answer_s = num_answer_tokens * self.cost.decode_s(num_running, num_context_tokens)
        return min(num_ahead, self.num_before + 1) * answer_s / num_running

    def step_s(self, num_prompt_tokens: int) -> float:
        """Predicted seconds of a step with the prompt's sequence in the batch: everybody's time per token."""
        return self.cost.decode_s(self.num_sequences + 1, self.num_context_tokens + num_prompt_tokens)

    def keeps(self, tpot_limit_s: float, num_prompt_tokens: int) -> bool:
        """Whether the prompt's sequence can run here at once, within the limit on the time per token."""
        return not self.must_wait(num_prompt_tokens) and self.step_s(num_prompt_tokens) <= STEP_SHARE * tpot_limit_s

    def has_most_of(self, num_prompt_tokens: int) -> bool:
        """Whether most of a prompt need not be sent."""
        return 2 * self.present_tokens >= num_prompt_tokens

    @property
    def occupancy(self) -> float:
        """The part of its places that are taken."""
        return self.num_sequences / self.max_num_seqs

    @property
    def fullness(self) -> tuple[float, int]:
        """Smaller is emptier: by sequences, then by blocks."""
        return self.occupancy, -self.free_blocks


def place(
    prefill: Sequence[PrefillCandidate],
    decode: Sequence[DecodeCandidate],
    num_prompt_tokens: int,
    avoid: Collection[WorkerId] = (),
    *,
    wanted_in_s: float = math.inf,
    latest_s: float = math.inf,
    tpot_limit_s: float = math.inf,
) -> tuple[WorkerId, WorkerId] | None:
    """Chooses (prefill, decode) for a prompt: earliest predicted completion, and the shortest predicted step.

    A prompt that no worker can have computed in `wanted_in_s` seconds, because of those that wait, goes to the one
    that would have it latest, but in `latest_s` seconds if anybody can: it is late wherever it waits, and there it
    makes the fewest others late.

    A sequence whose prompt is computed by a worker that is for tokens, too, stays there, where nothing need be sent,
    unless there is no room or steps would become too long for the limit on the time per token.

    Workers in `avoid` failed this request before; they are taken only if there is no other.

    Returns:
        None when a role has no worker.
    """
    if not prefill or not decode:
        return None
    chosen = _best_prefill(prefill, num_prompt_tokens, avoid, wanted_in_s, latest_s)
    can_stay = any(c.worker == chosen.worker and c.keeps(tpot_limit_s, num_prompt_tokens) for c in decode)
    return chosen.worker, chosen.worker if can_stay else best_decode(decode, num_prompt_tokens, avoid).worker


def _best_prefill(
    prefill: Sequence[PrefillCandidate],
    num_prompt_tokens: int,
    avoid: Collection[WorkerId],
    wanted_in_s: float,
    latest_s: float,
) -> PrefillCandidate:
    soonest = min(prefill, key=lambda c: (c.worker in avoid, c.completion_s(num_prompt_tokens), c.worker))
    completion_s = soonest.completion_s(num_prompt_tokens)
    if completion_s <= wanted_in_s or soonest.wait_s < WAITING_SHARE * (completion_s - soonest.wait_s):
        return soonest
    in_time = [c for c in prefill if c.completion_s(num_prompt_tokens) <= latest_s] or [soonest]
    return min(in_time, key=lambda c: (c.worker in avoid, -c.completion_s(num_prompt_tokens), c.worker))


def best_decode(
    decode: Sequence[DecodeCandidate], num_prompt_tokens: int, avoid: Collection[WorkerId] = ()
) -> DecodeCandidate:
    """Of those with room, one with the shortest step; of several such, one that has most of the prompt.

    That one must be about as empty as any. Then the emptiest, then the one that has more of the prompt. A beginning
    that many prompts share is no reason to send all of them to one worker, but an earlier turn of the same chat is.
    """
    ranks = [(c.worker in avoid, c.must_wait(num_prompt_tokens)) for c in decode]
    able = [candidate for candidate, rank in zip(decode, ranks, strict=True) if rank == min(ranks)]
    limit_s = SAME_STEP_TIME * min(candidate.step_s(num_prompt_tokens) for candidate in able)
    fast = [candidate for candidate in able if candidate.step_s(num_prompt_tokens) <= limit_s]
    full_at = SAME_FULLNESS + min(candidate.occupancy for candidate in fast)

    def rank(candidate: DecodeCandidate) -> tuple[bool, tuple[float, int], int, WorkerId]:
        goes_back = candidate.occupancy <= full_at and candidate.has_most_of(num_prompt_tokens)
        return not goes_back, candidate.fullness, -candidate.present_tokens, candidate.worker

    return min(fast, key=rank)
