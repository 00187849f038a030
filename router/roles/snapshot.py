"""What the role controller sees: the workers, and what has been asked for since it looked last. Plain values.

The router makes snapshots of its fleet, the simulator of its own; the controller cannot tell them apart.
"""

from dataclasses import dataclass

from core.cost import CostModel
from core.request import Role


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request must keep to count: time to first token, and mean time per token after it."""

    ttft_s: float
    tpot_s: float


@dataclass(frozen=True, slots=True)
class WorkerView:
    """An attached worker.

    Attributes:
        name: unique in the snapshot.
        role: which half it is for.
        is_pinned: whether its role must not be changed.
        is_cordoned: whether it gets no work.
        is_changing: whether a change of its role has been ordered and is not complete: it is not yet in the new role,
            or sequences of the old one still leave it.
        since_s: when it took its role, on the snapshot's clock.
        cost: how long its steps take now.
        queued_prompts: prompts it has not started.
        pending_prompt_tokens: prompt tokens it still has to compute.
        running_sequences: that it generates or is to generate.
        context_tokens: tokens those attend to.
        max_num_seqs: most it generates at once.
        kv_tokens: tokens whose KV fits its pool.
    """

    name: str
    role: Role
    is_pinned: bool
    is_cordoned: bool
    is_changing: bool
    since_s: float
    cost: CostModel
    queued_prompts: int
    pending_prompt_tokens: int
    running_sequences: int
    context_tokens: int
    max_num_seqs: int
    kv_tokens: int


@dataclass(frozen=True, slots=True)
class Demand:
    """What happened in a time, in sums.

    Attributes:
        duration_s: of the time.
        num_arrived: requests that came.
        prompt_tokens: of those, tokens that must be computed: not found in a cache.
        prompt_tokens_squared: sum of their squares, for the spread of prompt lengths.
        num_finished: requests that ended.
        answer_tokens: tokens of those.
        num_first_tokens: requests that got their first token.
        num_ttft_met: of those, in time.
        num_tpot_met: requests that ended with their mean time per token inside the limit.
    """

    duration_s: float = 0.0
    num_arrived: int = 0
    prompt_tokens: int = 0
    prompt_tokens_squared: float = 0.0
    num_finished: int = 0
    answer_tokens: int = 0
    num_first_tokens: int = 0
    num_ttft_met: int = 0
    num_tpot_met: int = 0


@dataclass(frozen=True, slots=True)
class FleetSnapshot:
    """Everything a decision rests on.

    Attributes:
        now_s: a clock that only goes forward.
        workers: attached ones, ordered by name.
        demand: since the snapshot before.
        limits: of every request.
        waiting_prompts: requests that no worker has been given yet.
        oldest_waiting_s: for how long the oldest prompt that may not have started has waited, on a worker or without.
    """

    now_s: float
    workers: tuple[WorkerView, ...]
    demand: Demand
    limits: Limits
    waiting_prompts: int = 0
    oldest_waiting_s: float = 0.0
