"""Drives an engine the way a worker does: block tables, slices, greedy decoding."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from torch import Tensor

from core.sampling import SamplingParams
from engine.engine import Engine
from engine.plan import Draw, SequenceSlice, SliceKind, StepPlan

GREEDY = SamplingParams(temperature=0.0)


@dataclass
class DrivenSequence:
    """One sequence: its tokens, its blocks and how many of its tokens are computed."""

    name: str
    token_ids: list[int]
    block_ids: list[int]
    num_prompt: int
    num_computed: int = 0
    params: SamplingParams = GREEDY

    def slice(self, num_tokens: int, *, draws: bool = True) -> SequenceSlice:
        start = self.num_computed
        end = start + num_tokens
        kind = SliceKind.PROMPT if start < self.num_prompt else SliceKind.DECODE
        draw = Draw(self.params, len(self.token_ids) - self.num_prompt) if draws else None
        self.num_computed = end
        return SequenceSlice(self.name, kind, self.token_ids[start:end], start, self.block_ids, draw)


@dataclass
class Driver:
    """Sequences over one engine, with block tables in random order; leaving its context frees the blocks."""

    engine: Engine
    sequences: dict[str, DrivenSequence] = field(default_factory=dict)
    rng: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311 - repeatable, not secret

    def add(
        self, name: str, prompt: Sequence[int], num_answer: int = 64, params: SamplingParams = GREEDY
    ) -> DrivenSequence:
        num_blocks = self.engine.pool.layout.blocks_for(len(prompt) + num_answer)
        block_ids = self.engine.pool.blocks.try_allocate(num_blocks)
        assert block_ids is not None
        self.rng.shuffle(block_ids)
        self.sequences[name] = DrivenSequence(name, list(prompt), block_ids, len(prompt), params=params)
        return self.sequences[name]

    def logits(self, *slices: SequenceSlice) -> Tensor:
        return self.engine.logits(StepPlan(slices))

    def step(self, *slices: SequenceSlice) -> dict[str, int]:
        """Executes slices and appends what they drew."""
        tokens = self.engine.step(StepPlan(slices)).tokens
        for name, token in tokens.items():
            self.sequences[name].token_ids.append(token)
        return tokens

    def generate(self, sequence: DrivenSequence, num_tokens: int) -> list[int]:
        """Computes the prompt whole and decodes; returns the answer."""
        self.step(sequence.slice(len(sequence.token_ids) - sequence.num_computed))
        for _ in range(num_tokens - 1):
            self.step(sequence.slice(1))
        return sequence.token_ids[sequence.num_prompt :]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sequence in self.sequences.values():
            self.engine.pool.blocks.release(sequence.block_ids)
        self.sequences.clear()
        self.engine.pool.blocks.check()
