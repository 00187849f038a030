"""A way to build one worker, and how much of a load it can carry: arithmetic on its cost model, no simulation."""

from bisect import bisect_right
from dataclasses import dataclass

from core.cost import STEP_SHARE, CostModel
from loadtest.planner.demand import Demand
from router.roles.snapshot import Limits


@dataclass(frozen=True, slots=True)
class WorkerOption:
    """A way to build a worker.

    Attributes:
        name: its sizes and precision, for people.
        num_gpus: of a worker.
        cost: of its steps.
        kv_tokens: that its pool has room for.
        sequence_tokens: that one sequence has room for: less than the pool where each lies on one of several ranks.
        token_move_s: for the KV of a token to reach another worker.
        handoff_s: of a handoff beside its bytes.
        most_seqs: sequences that it may generate at once, whatever the limits.
    """

    name: str
    num_gpus: int
    cost: CostModel
    kv_tokens: int
    sequence_tokens: int
    token_move_s: float
    handoff_s: float
    most_seqs: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """How many workers a load keeps busy all the time.

    Attributes:
        num_prefill: that compute its prompts.
        num_decode: that generate its answers.
        max_num_seqs: sequences at once with which a step still keeps the limit on the time per token.
    """

    num_prefill: float
    num_decode: float
    max_num_seqs: int

    @property
    def num_workers(self) -> float:
        """Both together."""
        return self.num_prefill + self.num_decode


@dataclass(frozen=True, slots=True)
class Infeasible:
    """Why no number of such workers can carry a load.

    Attributes:
        reason: with the numbers.
    """

    reason: str


def estimate(option: WorkerOption, demand: Demand, limits: Limits) -> Estimate | Infeasible:
    """What a load needs of an option, or why it cannot be."""
    if demand.longest_tokens > option.sequence_tokens:
        return Infeasible(
            f"KV room: the longest request has {demand.longest_tokens:,} tokens, one sequence room for "
            f"{option.sequence_tokens:,}"
        )
    alone_s = option.cost.completion_s(0, demand.long_new_tokens)
    if alone_s > limits.ttft_s:
        return Infeasible(
            f"TTFT: prompts of {demand.long_new_tokens:,} new tokens take {alone_s:.2f} s without waiting, the limit "
            f"is {limits.ttft_s:g} s, and too many are as long"
        )
    num_seqs = max_num_seqs(option, demand.context_tokens, limits.tpot_s)
    if not num_seqs:
        step_s = option.cost.decode_s(1, int(demand.context_tokens))
        return Infeasible(
            f"TPOT: a step with one sequence takes {1e3 * step_s:.1f} ms, the limit is {1e3 * limits.tpot_s:g} ms"
        )
    return Estimate(
        num_prefill=demand.rate * prompt_s(option, demand.new_tokens, demand.new_pairs),
        num_decode=demand.rate * demand.answer_tokens / tokens_per_s(option, num_seqs, demand.context_tokens),
        max_num_seqs=num_seqs,
    )


def max_num_seqs(option: WorkerOption, context_tokens: float, tpot_s: float) -> int:
    """The largest batch that leaves steps some of the limit, or else the largest inside it; 0 when there is none."""
    comfortable = largest_batch(option, context_tokens, STEP_SHARE * tpot_s)
    return comfortable or largest_batch(option, context_tokens, tpot_s)


def prompt_s(option: WorkerOption, num_tokens: float, num_pairs: float) -> float:
    """Seconds of a worker that a prompt takes among many, in full steps."""
    chunk_tokens = option.cost.chunk_tokens
    return option.cost.prefill.at(chunk_tokens) * num_tokens / chunk_tokens + option.cost.prefill_pair_s * num_pairs


def tokens_per_s(option: WorkerOption, num_seqs: int, context_tokens: float) -> float:
    """Of a worker that generates so many sequences."""
    return num_seqs / option.cost.decode_s(num_seqs, int(num_seqs * context_tokens))


def largest_batch(option: WorkerOption, context_tokens: float, step_s: float) -> int:
    """Sequences of so many tokens each whose step takes no longer, and that have room; 0 when not even one does."""
    room = min(option.most_seqs, int(option.kv_tokens / context_tokens))
    return bisect_right(
        range(1, room + 1), step_s, key=lambda num: option.cost.decode_s(num, int(num * context_tokens))
    )
