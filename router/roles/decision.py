"""What the role controller decides, with the numbers that led to it. Plain values, kept for `baton roles why`."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from core.request import Role


@dataclass(frozen=True, slots=True)
class Flip:
    """A worker that is to take another role."""

    worker: str
    role: Role


@dataclass(frozen=True, slots=True)
class SplitScore:
    """What a split of the workers is predicted to do.

    Attributes:
        num_prefill: workers for prompts.
        num_decode: workers for tokens.
        goodput: requests per second inside both limits, the cost of the flips taken off.
        ttft_s: predicted time to first token.
        tpot_s: predicted time per token.
        num_mixed: workers for both.
    """

    num_prefill: int
    num_decode: int
    goodput: float
    ttft_s: float
    tpot_s: float
    num_mixed: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """One look at the fleet.

    Attributes:
        at_s: on the snapshot's clock.
        reason: one sentence.
        num_prefill: workers for prompts now; mixed ones count in neither.
        num_decode: workers for tokens now.
        wanted_prefill: after the flips.
        wanted_decode: after the flips.
        flips: to be ordered now; none when all stays.
        numbers: what was predicted and measured, by name, with the unit at its end.
        options: the splits that were compared, best first.
    """

    at_s: float
    reason: str
    num_prefill: int
    num_decode: int
    wanted_prefill: int
    wanted_decode: int
    flips: tuple[Flip, ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)
    options: tuple[SplitScore, ...] = ()
