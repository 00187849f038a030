"""What a simulated fleet is made of, and what moving things in it costs."""

import math
from dataclasses import dataclass

from core.cost import CostModel
from core.errors import ConfigError
from loadtest.simulator.topology import Topology

ROUNDING = 1e-9  # of a tick: what a division may be off by


@dataclass(frozen=True, slots=True)
class Batching:
    """How a worker fills its steps.

    Attributes:
        step_tokens: most tokens of a step.
        chunk_tokens: most of one prompt in a step. As many as `step_tokens`: the oldest prompt gets all it can use,
            as with Baton's workers. Fewer: prompts share the steps.
        counts_contexts: whether all tokens that a step attends to count, and not only those that it computes.
        tpot_limit_s: to which prompts stretch the steps of sequences beside them, see
            `CostModel.prompt_tokens_beside`; None when they take no heed of them.
        tick_s: steps take a multiple of this; 0 for any time.

    Raises:
        ConfigError: on construction, when a number is out of range.
    """

    step_tokens: int
    chunk_tokens: int
    counts_contexts: bool = False
    tpot_limit_s: float | None = None
    tick_s: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.chunk_tokens <= self.step_tokens:
            raise ConfigError(
                f"a simulated step has {self.step_tokens} tokens, of which {self.chunk_tokens} are of one prompt; "
                "both must be at least 1, and the second no more than the first"
            )
        if not 0 <= self.tick_s < math.inf:
            raise ConfigError(f"tick_s is {self.tick_s}; it must be finite and not below 0")

    def rounded(self, seconds: float) -> float:
        """The time that a step takes which computes for so long."""
        return math.ceil(seconds / self.tick_s - ROUNDING) * self.tick_s if self.tick_s else seconds


def baton_batching(step_tokens: int, tpot_limit_s: float) -> Batching:
    """Of Baton's workers (`worker.loop`): prompts first come, first served, as many as the limit allows.

    Args:
        step_tokens: `--max-num-batched-tokens`.
        tpot_limit_s: of the time per token.
    """
    return Batching(step_tokens, step_tokens, tpot_limit_s=tpot_limit_s)


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """A kind of worker.

    Attributes:
        cost: how long its steps take.
        batching: how it fills them.
        max_num_seqs: most sequences it generates at once.
        kv_tokens: tokens whose KV fits its pool.
        prefix_block_tokens: tokens of each block that `Arrival.block_ids` names.

    Raises:
        ConfigError: on construction, when steps take no time or there is room for nothing.
    """

    cost: CostModel
    batching: Batching
    max_num_seqs: int
    kv_tokens: int
    prefix_block_tokens: int = 512

    def __post_init__(self) -> None:
        if not (self.cost.prefill.at(1) > 0 and self.cost.decode.at(1) > 0):
            raise ConfigError("a simulated step takes 0 s; give the cost model's curves seconds above 0")
        for name in ("max_num_seqs", "kv_tokens", "prefix_block_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} of a simulated worker is {getattr(self, name)}; it must be at least 1")


@dataclass(frozen=True, slots=True)
class MoveCosts:
    """What it takes to move KV and to give orders.

    Attributes:
        handoff_s: from the first token of an answer until its sequence runs elsewhere, bytes apart.
        token_s: for the KV of one token to travel. Of a prompt only the last chunk's counts: the others travel while
            it is computed. With a topology it is its wires that take time, and this counts for nothing.
        pause_s: for which a migrating sequence stands still; what came before was copied while it was generated.
        order_s: from a decision until the worker has it, and until what it gives back is placed again.

    Raises:
        ConfigError: on construction, when one is negative or not finite.
    """

    handoff_s: float
    token_s: float = 0.0
    pause_s: float = 0.05
    order_s: float = 0.005

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be finite and not below 0")

    def copy_s(self, num_tokens: int) -> float:
        """For the KV of so many tokens to arrive, with what comes before and after."""
        return self.handoff_s + self.token_s * num_tokens


@dataclass(frozen=True, slots=True)
class FleetSpec:
    """A fleet of equal workers.

    Attributes:
        num_workers: at least one.
        worker: what each is.
        moves: what moving KV and giving orders takes.
        topology: where workers stand; None where KV takes `MoveCosts.token_s` wherever it goes.
        start_s: from the death of a worker until another process has its name and takes work.

    Raises:
        ConfigError: on construction, when a number is out of range.
    """

    num_workers: int
    worker: WorkerSpec
    moves: MoveCosts
    topology: Topology | None = None
    start_s: float = 60.0

    def __post_init__(self) -> None:
        if self.num_workers < 1:
            raise ConfigError(f"a simulated fleet has {self.num_workers} workers; give it at least 1")
        if not 0 <= self.start_s < math.inf:
            raise ConfigError(f"start_s of a simulated fleet is {self.start_s}; it must be finite and not below 0")
