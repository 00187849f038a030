"""The loads that the simulator is held to: how long requests are, what they share, what part of a fleet they take."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from core.cost import CostModel
from loadtest.workloads.plan import ConversationPlan
from loadtest.workloads.settings import WorkloadSettings
from loadtest.workloads.workload import Workload

BATCH = 4  # sequences at once, about, in a decode worker that has work half of the time
SAMPLE = 256  # requests whose mean length is taken for that of all


@dataclass(frozen=True, slots=True)
class Case:
    """A load.

    Attributes:
        name: in checks.
        settings: of its requests, each a conversation of one turn.
        busy: part of the time that the busier half has work, by its cost model: so the rate follows the machine.
        ttft_factor: the limit on the time to the first token, as so many times what a mean prompt takes alone.
        tpot_factor: that on the time per token, as so many times a step of `BATCH` sequences.
    """

    name: str
    settings: WorkloadSettings
    busy: float = 0.4
    ttft_factor: float = 3.0
    tpot_factor: float = 1.5


@dataclass(frozen=True, slots=True)
class Pressure:
    """A case on a certain machine.

    Attributes:
        rate: requests per second.
        ttft_limit_s: of a request.
        tpot_limit_s: likewise.
    """

    rate: float
    ttft_limit_s: float
    tpot_limit_s: float


def cases(settings: WorkloadSettings) -> tuple[Case, ...]:
    """Short prompts with long answers, long prompts with short answers, and prompts that share their beginnings.

    Args:
        settings: the tokenizer and the seed of all of them.
    """

    def of(name: str, **lengths: str | int) -> Case:
        # mypy cannot see which fields `lengths` names.
        return Case(name, WorkloadSettings(tokenizer=settings.tokenizer, seed=settings.seed, **lengths))  # type: ignore[arg-type]

    return (
        of("answers", prompt_tokens="48:144", answer_tokens="32:96"),
        of("prompts", prompt_tokens="384:896", answer_tokens="8:24"),
        of("shared", prompt_tokens="96:160", answer_tokens="24:40", prefixes=4, prefix_tokens=256),
    )


def pressure(case: Case, workload: Workload, cost: CostModel) -> Pressure:
    """What a case is on one prefill and one decode worker. What requests share counts as cached.

    Args:
        case: which.
        workload: of its settings.
        cost: of both workers' steps.
    """
    plans = list(itertools.islice(workload.open_loop(1.0), SAMPLE))
    num_shared, num_own = _mean_tokens(plans, is_shared=True), _mean_tokens(plans, is_shared=False)
    answer_tokens = fmean(plan.turns[0].answer_tokens for plan in plans)
    prompt_s = cost.completion_s(0, round(num_own), round(num_shared))
    step_s = cost.decode_s(BATCH, round(BATCH * (num_shared + num_own + answer_tokens / 2)))
    answer_s = answer_tokens * step_s / BATCH
    return Pressure(case.busy / max(prompt_s, answer_s), case.ttft_factor * prompt_s, case.tpot_factor * step_s)


def _mean_tokens(plans: Sequence[ConversationPlan], *, is_shared: bool) -> float:
    return fmean(
        sum(
            piece.num_tokens
            for message in plan.turns[0].messages
            for piece in message.pieces
            if piece.is_shared is is_shared
        )
        for plan in plans
    )
