"""Whether a prefill worker should fetch the beginning of a prompt from another worker. Pure arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.ids import WorkerId
from router.dispatch.placement import PrefillCandidate

# A fetch must be predicted to be this much faster than computing: predictions are off by tens of percent, and a fetch
# also takes memory bandwidth from whoever computes on either worker.
MARGIN = 2.0
FIXED_S = 0.01  # two calls between workers, and the ends of the write being noticed
DEFAULT_BYTES_PER_S = 1e9  # a 10 Gbit/s network, until something better is measured
MIN_MEASURED_BYTES = 64 * 2**20  # fewer say more about waiting than about bandwidth


@dataclass(frozen=True, slots=True)
class PrefixHolder:
    """A worker that has the beginning of a prompt, in blocks just like those of the one that may fetch it.

    Attributes:
        worker: its id.
        num_tokens: leading tokens it has, in whole blocks.
        delay_s: predicted seconds until it begins to write: its step must end first.
    """

    worker: WorkerId
    num_tokens: int
    delay_s: float


@dataclass(frozen=True, slots=True)
class BlockTraffic:
    """What moving blocks to a worker takes.

    Attributes:
        block_tokens: tokens per block.
        block_bytes: of a block, on all ranks together.
        bytes_per_s: of all ranks together.
    """

    block_tokens: int
    block_bytes: int
    bytes_per_s: float

    def usable_tokens(self, num_tokens: int, num_prompt_tokens: int) -> int:
        """Of `num_tokens` leading tokens, those in whole blocks that leave a token of the prompt to compute."""
        return min(num_tokens, num_prompt_tokens - 1) // self.block_tokens * self.block_tokens

    def seconds(self, num_tokens: int) -> float:
        """Until blocks of so many tokens are moved."""
        return num_tokens / self.block_tokens * self.block_bytes / self.bytes_per_s


@dataclass(frozen=True, slots=True)
class FetchPlan:
    """A fetch that is worth it.

    Attributes:
        worker: whom to fetch from.
        num_tokens: leading tokens of the prompt, in whole blocks, those that the target has itself included.
        expected_s: predicted seconds until they have come.
        saved_s: predicted seconds by which the prompt is computed sooner.
    """

    worker: WorkerId
    num_tokens: int
    expected_s: float
    saved_s: float


def measured_bytes_per_s(num_bytes: int, seconds: float) -> float:
    """Bandwidth from totals of transfers, or a careful guess while there are too few."""
    return num_bytes / seconds if num_bytes >= MIN_MEASURED_BYTES and seconds > 0 else DEFAULT_BYTES_PER_S


def plan_fetch(
    target: PrefillCandidate, holders: Sequence[PrefixHolder], traffic: BlockTraffic, num_prompt_tokens: int
) -> FetchPlan | None:
    """The fetch that gains most; None when computing is as good as any.

    Args:
        target: who is to compute the prompt, with what it has of it.
        holders: other workers that have some of it.
        traffic: of blocks to the target.
        num_prompt_tokens: of the whole prompt.
    """
    plans = [_plan(target, holder, traffic, num_prompt_tokens) for holder in holders]
    worth_it = [plan for plan in plans if plan.saved_s > (MARGIN - 1) * plan.expected_s]
    return max(worth_it, key=lambda plan: (plan.saved_s, plan.worker), default=None)


def _plan(target: PrefillCandidate, holder: PrefixHolder, traffic: BlockTraffic, num_prompt_tokens: int) -> FetchPlan:
    num_here = traffic.usable_tokens(target.cached_tokens, num_prompt_tokens)
    num_there = traffic.usable_tokens(holder.num_tokens, num_prompt_tokens)
    expected_s = FIXED_S + holder.delay_s + traffic.seconds(max(0, num_there - num_here))
    computing_s = target.prompt_s(num_prompt_tokens, num_here) - target.prompt_s(num_prompt_tokens, num_there)
    return FetchPlan(holder.worker, num_there, expected_s, saved_s=computing_s - expected_s)
