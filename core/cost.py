"""How long a worker's steps take: the model that workers fit and routers predict with. Arithmetic only, no clocks.

    time of a step = prompt part + decode part - what both would pay for alone
    prompt part    = curve(tokens) + s per pair of a token and one before it
    decode part    = curve(sequences) + s per token of their contexts

The curves are piecewise linear and never fall: steps of few tokens cost what reading the weights costs, whatever
their number; more tokens cost computing; and kernels change with the size. What both parts would pay for alone is
reading weights, in a mixed step done once.
"""

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from typing import Any

from core.errors import ConfigError

STEP_SHARE = 0.8  # of the limit on the time per token; the rest is for steps' errors, pauses and handoffs
MAX_STRETCH = 2.0  # a step twice as long as the one before is within what a reader of a stream takes for even
MIN_PROMPT_TOKENS = 16  # a matrix product of so many rows takes hardly longer than one of a single row


@dataclass(frozen=True, slots=True)
class StepShape:
    """What decides the time of a step.

    Attributes:
        num_prompt_tokens: computed in prompt chunks.
        num_prompt_pairs: pairs of a prompt token and a token of its sequence that it attends to; see `chunk_pairs`.
        num_sequences: sequences that decode one token each.
        num_context_tokens: tokens those attend to, summed over them.
    """

    num_prompt_tokens: int = 0
    num_prompt_pairs: float = 0.0
    num_sequences: int = 0
    num_context_tokens: int = 0


def chunk_pairs(num_tokens: int, num_before: int) -> float:
    """Pairs of a token and one it attends to, in a chunk of `num_tokens` after `num_before` tokens.

    Half of the square, for the mask is causal. Chunks add up: cutting one in two leaves the sum as it was.
    """
    return num_tokens * (num_before + num_tokens / 2)


@dataclass(frozen=True, slots=True)
class Curve:
    """Seconds by number of tokens or sequences, linear between points; beyond the last it goes on as before it.

    Attributes:
        points: `(number, seconds)` with rising numbers from 1 on and seconds that do not fall; at least one.

    Raises:
        ConfigError: on construction, when it is no such curve.
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        rises = all(a[0] < b[0] and a[1] <= b[1] for a, b in zip(self.points, self.points[1:], strict=False))
        is_finite = all(math.isfinite(value) for point in self.points for value in point)
        if not (self.points and rises and is_finite and self.points[0][0] >= 1 and self.points[0][1] >= 0):
            raise ConfigError(f"a cost curve has the points {self.points}; both coordinates must rise from (1, 0) on")

    def at(self, number: float) -> float:
        """Seconds for `number`, at least one; never falls."""
        if len(self.points) == 1 or number <= self.points[0][0]:
            return self.points[0][1]
        after = min(bisect_right(self.points, (number, math.inf)), len(self.points) - 1)
        (x0, y0), (x1, y1) = self.points[after - 1 : after + 1]
        return y0 + (y1 - y0) * (number - x0) / (x1 - x0)

    def times(self, factor: float) -> "Curve":
        """The same curve with all seconds multiplied."""
        return Curve(tuple((number, seconds * factor) for number, seconds in self.points))


@dataclass(frozen=True, slots=True)
class CostChange:
    """By how much steps differ from a cost model now, each as a share of it: 0.5 is half as slow again.

    Attributes:
        prefill: of the curve of prompt tokens.
        prefill_attention: of the time per pair.
        decode: of the curve of sequences.
        decode_attention: of the time per context token.

    Raises:
        ConfigError: on construction, when a change is no more than -1 or not finite.
    """

    prefill: float = 0.0
    prefill_attention: float = 0.0
    decode: float = 0.0
    decode_attention: float = 0.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not -1 < value < math.inf:
                raise ConfigError(f"the cost of {name} is said to have changed by {value}; it must be more than -1")


@dataclass(frozen=True, slots=True)
class CostModel:
    """Predicts the steps of one worker.

    Attributes:
        chunk_tokens: most prompt tokens of one step; longer prompts are computed in chunks of this.
        prefill: seconds of a step by its prompt tokens, attention to earlier tokens apart.
        prefill_pair_s: seconds per pair, see `chunk_pairs`.
        decode: seconds of a step by its decoding sequences, attention apart.
        decode_context_token_s: seconds per token of their contexts.
        added_token_s: seconds that a token adds to a step which reads all weights in any case, where this is known:
            of models that are derived, not measured; the wire between workers and routers does not carry it.

    Raises:
        ConfigError: on construction, when a value is out of range.
    """

    chunk_tokens: int
    prefill: Curve
    prefill_pair_s: float
    decode: Curve
    decode_context_token_s: float
    added_token_s: float | None = None

    def __post_init__(self) -> None:
        if self.chunk_tokens < 1:
            raise ConfigError(f"chunk_tokens of a cost model is {self.chunk_tokens}; it must be at least 1")
        for name in ("prefill_pair_s", "decode_context_token_s", "added_token_s"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ConfigError(f"{name} of a cost model is {value}; it must be finite and not below 0")

    # --- one step

    def prefill_s(self, num_tokens: int, num_pairs: float) -> float:
        """Seconds of the prompt part of a step; 0 without prompt tokens."""
        return self.prefill.at(num_tokens) + self.prefill_pair_s * num_pairs if num_tokens else 0.0

    def decode_s(self, num_sequences: int, num_context_tokens: int) -> float:
        """Seconds of the decode part of a step; 0 without sequences."""
        attention_s = self.decode_context_token_s * num_context_tokens
        return self.decode.at(num_sequences) + attention_s if num_sequences else 0.0

    def step_s(self, shape: StepShape) -> float:
        """Seconds of a whole step; a mixed one pays only once what both of its parts have in common."""
        prompt_s = self.prefill_s(shape.num_prompt_tokens, shape.num_prompt_pairs)
        decode_s = self.decode_s(shape.num_sequences, shape.num_context_tokens)
        shared_s = self.shared_s(shape.num_prompt_tokens, shape.num_sequences) if prompt_s and decode_s else 0.0
        return prompt_s + decode_s - shared_s

    def shared_s(self, num_prompt_tokens: int, num_sequences: int) -> float:
        """Seconds that both parts of a mixed step have in common: of reading weights, and of any step.

        Without `added_token_s` that is the cheapest step. With it, it is all that the smaller part takes alone but
        for adding its tokens: experts, too, that both ask are read once. Both numbers are at least one.
        """
        if self.added_token_s is None:
            return min(self.prefill.at(1), self.decode.at(1))
        fewer = min(num_prompt_tokens, num_sequences)
        return max(0.0, min(self.prefill.at(fewer), self.decode.at(fewer)) - fewer * self.added_token_s)

    def prompt_tokens_beside(
        self,
        sequences: StepShape,
        most_tokens: int,
        tpot_limit_s: float,
        num_before: int = 0,
        *,
        may_stretch: bool = False,
    ) -> int:
        """How many prompt tokens a step may compute beside sequences that decode, so that these do not stutter.

        The step may last for `STEP_SHARE` of the limit on the time per token.

        Args:
            sequences: what decodes; without any, all tokens may.
            most_tokens: the step has room for.
            tpot_limit_s: seconds.
            num_before: tokens of the first prompt that are computed already, which its next ones attend to.
            may_stretch: whether the step may also last `MAX_STRETCH` times as long as without prompts, whatever the
                limit: where sequences are about to leave.

        Returns:
            At most `most_tokens`, and `MIN_PROMPT_TOKENS` if there is room, lest prompts never end.
        """
        decode_s = self.decode_s(sequences.num_sequences, sequences.num_context_tokens)
        if not decode_s:
            return most_tokens
        longest_s = max(STEP_SHARE * tpot_limit_s, MAX_STRETCH * decode_s if may_stretch else 0.0)
        num_sequences = sequences.num_sequences
        # Found once where it is the same for all numbers: placement asks this often.
        constant_s = self.shared_s(1, 1) if self.added_token_s is None else None

        def is_too_long(num_tokens: int) -> bool:
            shared_s = self.shared_s(num_tokens, num_sequences) if constant_s is None else constant_s
            return self.prefill_s(num_tokens, chunk_pairs(num_tokens, num_before)) > longest_s - decode_s + shared_s

        fit = bisect_left(range(1, most_tokens + 1), x=True, key=is_too_long)
        return min(most_tokens, max(fit, MIN_PROMPT_TOKENS))

    def prompt_share(self, sequences: StepShape, tpot_limit_s: float) -> float:
        """How fast prompts are computed beside sequences, as a share of how fast they are without any.

        Attention of prompts is not counted.

        Returns:
            At most 1, and above 0: see `prompt_tokens_beside`.
        """
        num_tokens = self.prompt_tokens_beside(sequences, self.chunk_tokens, tpot_limit_s)
        full_step_s, step_s = (
            self.prefill.at(self.chunk_tokens),
            self.step_s(replace(sequences, num_prompt_tokens=num_tokens)),
        )
        return min(1.0, num_tokens * full_step_s / (self.chunk_tokens * step_s)) if full_step_s else 1.0

    # --- many steps

    def backlog_s(self, num_tokens: int) -> float:
        """Seconds until `num_tokens` tokens of prompts are computed in full steps; attention not counted."""
        num_full_steps, rest = divmod(num_tokens, self.chunk_tokens)
        return num_full_steps * self.prefill.at(self.chunk_tokens) + (self.prefill.at(rest) if rest else 0.0)

    def completion_s(self, num_pending_tokens: int, num_tokens: int, num_cached: int = 0) -> float:
        """Seconds until a prompt is computed that waits for `num_pending_tokens` tokens of others.

        Args:
            num_pending_tokens: prompt tokens that are computed before.
            num_tokens: tokens of the prompt that are still to be computed.
            num_cached: tokens of the prompt before those, whose KV is there.
        """
        attention_s = self.prefill_pair_s * chunk_pairs(num_tokens, num_cached)
        return self.backlog_s(num_pending_tokens + num_tokens) + attention_s

    # --- changes and storage

    def changed(self, change: CostChange) -> "CostModel":
        """The model of a worker whose steps have changed."""
        return replace(
            self,
            prefill=self.prefill.times(1 + change.prefill),
            prefill_pair_s=self.prefill_pair_s * (1 + change.prefill_attention),
            decode=self.decode.times(1 + change.decode),
            decode_context_token_s=self.decode_context_token_s * (1 + change.decode_attention),
            added_token_s=None if self.added_token_s is None else self.added_token_s * (1 + change.prefill),
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON values; `from_json` reads them."""
        return {
            "chunk_tokens": self.chunk_tokens,
            "prefill": self.prefill.points,
            "prefill_pair_s": self.prefill_pair_s,
            "decode": self.decode.points,
            "decode_context_token_s": self.decode_context_token_s,
            "added_token_s": self.added_token_s,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "CostModel":
        """Inverse of `to_json`.

        Raises:
            ConfigError: a value is missing or out of range.
        """
        try:
            return cls(
                chunk_tokens=int(values["chunk_tokens"]),
                prefill=Curve(tuple((float(x), float(y)) for x, y in values["prefill"])),
                prefill_pair_s=float(values["prefill_pair_s"]),
                decode=Curve(tuple((float(x), float(y)) for x, y in values["decode"])),
                decode_context_token_s=float(values["decode_context_token_s"]),
                added_token_s=None if (added_s := values.get("added_token_s")) is None else float(added_s),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"a cost model cannot be read ({error!r}); delete it and it is measured anew"
            ) from error
