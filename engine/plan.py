"""What one engine step does: slices of many sequences, prompt chunks and decode tokens mixed.

The engine keeps no sequences of its own. Whoever plans a step hands it the tokens, the blocks and the sampling
parameters; who those are (prefill half, decode half) is not the engine's concern.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from core.logprobs import TokenLogprobs
from core.sampling import SamplingParams
from engine.sampling.rules import LogitRules


class SliceKind(Enum):
    """What a slice's tokens are counted as."""

    PROMPT = auto()
    DECODE = auto()


@dataclass(frozen=True, slots=True)
class Draw:
    """A wish for a token after the last one of a slice.

    Attributes:
        params: how it is chosen.
        position: index of the new token in the answer; with the seed it determines the draw.
        rules: what changes the logits first, up to date with all tokens before `position`; None when nothing does.
    """

    params: SamplingParams
    position: int
    rules: LogitRules | None = None


@dataclass(frozen=True, slots=True)
class SequenceSlice:
    """Consecutive tokens of one sequence that are computed in this step.

        positions   0 ........ start ........ start + len(token_ids)
                    [ KV in blocks )[ computed in this step        )

    Attributes:
        sequence_id: unique within the plan.
        kind: what the tokens are counted as.
        token_ids: the tokens to compute, at least one; all inside the vocabulary.
        start: position of the first of them in the sequence.
        block_ids: the sequence's block table; covers at least `start + len(token_ids)` tokens.
        draw: how to choose the next token, or None in the middle of a prompt.
    """

    sequence_id: str
    kind: SliceKind
    token_ids: Sequence[int]
    start: int
    block_ids: Sequence[int]
    draw: Draw | None

    @property
    def end(self) -> int:
        """Position after the slice's last token."""
        return self.start + len(self.token_ids)


@dataclass(frozen=True, slots=True)
class StepPlan:
    """The slices of one step; no sequence appears twice."""

    slices: tuple[SequenceSlice, ...]


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step produced.

    Attributes:
        tokens: the drawn token id of every slice that had a `draw`, by sequence id.
        logprobs: by sequence id, for the draws whose parameters asked for them.
        num_prompt_tokens: tokens computed in slices of kind PROMPT.
        num_decode_tokens: tokens computed in slices of kind DECODE.
    """

    tokens: dict[str, int] = field(default_factory=dict)
    logprobs: dict[str, TokenLogprobs] = field(default_factory=dict)
    num_prompt_tokens: int = 0
    num_decode_tokens: int = 0
