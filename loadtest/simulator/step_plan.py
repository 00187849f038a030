"""How much of a step prompts get, and what the step then is. Pure; whose prompts they are is the worker's to say."""

from collections.abc import Sequence

from core.cost import StepShape, chunk_pairs
from core.request import Role
from loadtest.simulator.job import Job
from loadtest.simulator.spec import WorkerSpec


def prompt_budget(spec: WorkerSpec, role: Role, sequences: StepShape, first: Job | None) -> int:
    """Prompt tokens of the next step of a worker that has some to compute, see `worker.loop`.

    Args:
        spec: of the worker.
        role: that it has.
        sequences: what decodes beside them.
        first: the oldest prompt that is begun; None when none is.
    """
    batching = spec.batching
    used = sequences.num_context_tokens if batching.counts_contexts else sequences.num_sequences
    room = batching.step_tokens - used
    if batching.tpot_limit_s is None or room <= 0:
        return room
    num_before = first.num_computed if first is not None else 0
    may_stretch = role is Role.PREFILL
    return spec.cost.prompt_tokens_beside(sequences, room, batching.tpot_limit_s, num_before, may_stretch=may_stretch)


def step_shape(chunks: Sequence[tuple[Job, int]], num_sequences: int, num_context_tokens: int) -> StepShape:
    """The shape of a step: prompts with the tokens of each that it computes, and sequences."""
    num_tokens, num_pairs = 0, 0.0
    for job, num_new in chunks:
        num_tokens += num_new
        num_pairs += chunk_pairs(num_new, job.num_computed)
    return StepShape(num_tokens, num_pairs, num_sequences, num_context_tokens)
