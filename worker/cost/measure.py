"""Measures a cost model: which steps are worth timing, the most telling first, within a bounded time."""

import logging
from collections.abc import Callable, Sequence
from itertools import zip_longest

from core.clock import Clock
from core.cost import CostModel
from engine.engine import Engine
from engine.plan import SliceKind
from worker.cost.fit import Sample, fit_cost
from worker.cost.probe import ProbeStep

BUDGET_S = 2.0  # bounds what measuring adds to a worker's start; enough for the better part of the demo's steps
MAX_STEP_S = BUDGET_S / 2  # longer chunks are not measured; the curve goes on as it ended
MAX_RUNS = 3  # of each step while time is left; the fastest counts, for the others were disturbed
NUM_NEEDED = 4  # the first of `probe_steps`, without which a prediction would be a guess: measured at any price

# Where kernels change is not known beforehand, so sizes are close together where steps are cheap.
PROMPT_SIZES = (1, 2, 8, 32, 128, 256, 512, 1024, 2048, 4096, 8192)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
# Long enough that attention shows in the time of a step beside everything else. On an accelerator, whose other work
# is a thousand times faster but whose attention is bound by memory as everywhere, it takes a longer one.
CONTEXTS = (8192, 1024, 256, 64, 16)
FAST_STEP_S = 0.02
MAX_FIRST_PROMPT = 128  # long enough that a step's fixed cost matters little, short enough for any start

logger = logging.getLogger(__name__)

RunStep = Callable[[ProbeStep], float]
"""Runs a step; returns its seconds."""


def first_steps(engine: Engine, chunk_tokens: int) -> tuple[ProbeStep, ProbeStep]:
    """The prompt chunk and the decode step that warm an engine up and tell most about its speed."""
    num_tokens = min(MAX_FIRST_PROMPT, chunk_tokens, engine.max_model_len - 1)
    return ProbeStep(SliceKind.PROMPT, num_tokens), ProbeStep(SliceKind.DECODE, 1)


def probe_steps(engine: Engine, chunk_tokens: int, max_num_seqs: int, first_s: float) -> list[ProbeStep]:
    """Steps to measure that fit the engine, the most telling first, without a step twice.

    Args:
        engine: limits length of sequences and number of blocks.
        chunk_tokens: most prompt tokens of a step.
        max_num_seqs: most decoding sequences of a step.
        first_s: seconds of the first of `first_steps`; on fast engines contexts and chunks are longer.
    """
    prompt, decode = first_steps(engine, chunk_tokens)
    longest = min(chunk_tokens, max(prompt.size, int(prompt.size * MAX_STEP_S / first_s)))
    prompts = [ProbeStep(SliceKind.PROMPT, n) for n in {*PROMPT_SIZES, chunk_tokens} if n <= longest]
    decodes = [ProbeStep(SliceKind.DECODE, n) for n in {*BATCH_SIZES, max_num_seqs} if n <= max_num_seqs]
    prompts, decodes = (_fitting(engine, sorted(steps, key=lambda s: s.size)) for steps in (prompts, decodes))
    contexts = CONTEXTS if first_s < FAST_STEP_S else CONTEXTS[1:]
    prompts_after = _fitting(engine, [ProbeStep(SliceKind.PROMPT, prompt.size, c) for c in contexts])
    decodes_after = _fitting(engine, [ProbeStep(SliceKind.DECODE, min(4, max_num_seqs), c) for c in contexts])
    other = prompts[-1] if prompts[-1] != prompt else prompts[0]  # a curve needs two points
    steps = [
        *(prompt, decode, other, decodes[-1]),
        *(*decodes_after[:1], *prompts_after[:1]),
        *_by_turns(prompts[::2], decodes[::2]),  # what is left out for want of time lies between its neighbours
        *_by_turns(prompts[1::2], decodes[1::2]),
    ]
    return list(dict.fromkeys(steps))


def measure_cost(run: RunStep, steps: Sequence[ProbeStep], chunk_tokens: int, clock: Clock) -> CostModel:
    """Times steps in their order until `BUDGET_S` have passed, and fits a cost model.

    Args:
        run: runs a step on a warm engine.
        steps: of `probe_steps`.
        chunk_tokens: most prompt tokens of a step.
        clock: tells how much time has passed.
    """
    deadline_s = clock.now_s() + BUDGET_S
    fastest_s: dict[ProbeStep, float] = {}
    for step in steps:
        if clock.now_s() > deadline_s and len(fastest_s) >= NUM_NEEDED:
            break
        # The first run with a context touches fresh memory, which costs more than the attention.
        fastest_s[step] = min(run(step) for _ in range(2 if step.context else 1))
    for _ in range(MAX_RUNS - 1):
        for step, step_s in list(fastest_s.items()):
            if clock.now_s() + step_s <= deadline_s:
                fastest_s[step] = min(step_s, run(step))
    model = fit_cost([Sample(step.shape, step_s) for step, step_s in fastest_s.items()], chunk_tokens)
    logger.info("measured %d of %d steps: %s", len(fastest_s), len(steps), describe(model))
    return model


def describe(model: CostModel) -> str:
    """What a cost model predicts for the largest steps it was measured with."""
    (num_tokens, _), (num_sequences, _) = model.prefill.points[-1], model.decode.points[-1]
    return (
        f"{num_tokens:g} prompt tokens take {model.prefill.at(num_tokens):.3g} s, one sequence decodes in "
        f"{model.decode.at(1):.3g} s a step, {num_sequences:g} in {model.decode.at(num_sequences):.3g} s"
    )


def _fitting(engine: Engine, steps: Sequence[ProbeStep]) -> list[ProbeStep]:
    return [step for step in steps if step.fits(engine)]


def _by_turns(*lists: Sequence[ProbeStep]) -> list[ProbeStep]:
    """The first of each list, then the second of each, to the end of the longest."""
    return [step for steps in zip_longest(*lists) for step in steps if step is not None]
