"""Single steps made up to be timed, on an engine that nobody else uses yet."""

import time
from dataclasses import dataclass

from core.cost import StepShape, chunk_pairs
from core.sampling import SamplingParams
from engine.engine import Engine
from engine.plan import Draw, SequenceSlice, SliceKind, StepPlan

GREEDY = Draw(SamplingParams(temperature=0.0), 0)


@dataclass(frozen=True, slots=True)
class ProbeStep:
    """A chunk of one prompt, or one token each of several sequences.

    Attributes:
        kind: which of both.
        size: tokens of the chunk, or number of sequences.
        context: tokens of each sequence before those computed.
    """

    kind: SliceKind
    size: int
    context: int = 0

    @property
    def num_sequences(self) -> int:
        """Sequences in the step."""
        return 1 if self.kind is SliceKind.PROMPT else self.size

    @property
    def num_tokens(self) -> int:
        """Tokens of each sequence that are computed."""
        return self.size if self.kind is SliceKind.PROMPT else 1

    @property
    def shape(self) -> StepShape:
        """As the cost model sees it."""
        if self.kind is SliceKind.PROMPT:
            return StepShape(num_prompt_tokens=self.size, num_prompt_pairs=chunk_pairs(self.size, self.context))
        return StepShape(num_sequences=self.size, num_context_tokens=self.size * (self.context + 1))

    def fits(self, engine: Engine) -> bool:
        """Whether the engine serves sequences of this length and has blocks for all of them."""
        length, blocks = self.context + self.num_tokens, engine.pool.blocks
        most_together = blocks.num_free_together // engine.pool.layout.blocks_for(length)
        return length <= engine.max_model_len and self.num_sequences <= most_together * blocks.num_partitions


def time_step(engine: Engine, step: ProbeStep) -> float:
    """Seconds that a step takes that fits. Counts no tokens, and leaves all blocks free."""
    tables = []
    for _ in range(step.num_sequences):
        table = engine.pool.blocks.try_allocate(engine.pool.layout.blocks_for(step.context + step.num_tokens))
        assert table is not None, f"{step} does not fit"
        tables.append(table)
    slices = [
        SequenceSlice(f"probe-{i}", step.kind, [0] * step.num_tokens, step.context, table, GREEDY)
        for i, table in enumerate(tables)
    ]
    started_s = time.perf_counter()
    engine.logits(StepPlan(tuple(slices))).argmax(-1).tolist()  # reading the result waits for a GPU
    step_s = time.perf_counter() - started_s
    for table in tables:
        engine.pool.blocks.release(table)
    return step_s
